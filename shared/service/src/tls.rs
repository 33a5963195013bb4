//! TLS to servers of others: rustls with ring, trusting whom this machine trusts.

/// Client settings with the system's roots of trust. Reading them takes milliseconds, so keep what you get.
pub fn client() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::error!(
            "this machine has no root certificates: install them (ca-certificates), or name a file with SSL_CERT_FILE"
        );
    }
    rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
