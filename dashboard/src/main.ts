import { mount } from 'svelte';
import App from './App.svelte';
import { keepToken } from './api/client';
import './styles.css';

keepToken();
const target = document.getElementById('app');
if (target === null) throw new Error('the page has no element "app"');
mount(App, { target });
