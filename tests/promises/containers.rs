//! A Redis in a container, as an image brings it: the log's promises are shown on it too, with nothing of this machine but its engine.
//!
//! Needs an engine that answers and the image that TAILSPAN_TEST_REDIS_IMAGE names: `tests/docker/run` sees to both. Without the
//! variable these tests are skipped and say so: a test must not wait for a registry that may not be there.

use testcontainers::{
    ContainerAsync, GenericImage,
    core::{IntoContainerPort as _, WaitFor},
    runners::AsyncRunner as _,
};

use crate::support::raw_command;

/// Lives as long as its value; removed with it.
pub(crate) struct Contained {
    _container: ContainerAsync<GenericImage>,
    port: u16,
}

/// Starts one; `None` where no image is named.
pub(crate) async fn redis() -> Option<Contained> {
    let Ok(image) = std::env::var("TAILSPAN_TEST_REDIS_IMAGE") else {
        eprintln!("skipped: TAILSPAN_TEST_REDIS_IMAGE names no image (tests/docker/run does)");
        return None;
    };
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let container = GenericImage::new(name, tag)
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .start()
        .await
        .expect("the engine starts the image");
    let port = container
        .get_host_port_ipv4(6379)
        .await
        .expect("the engine publishes the port");
    Some(Contained {
        _container: container,
        port,
    })
}

impl Contained {
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        raw_command(self.port, words)
            .await
            .unwrap_or_else(|error| error.to_string())
    }
}
