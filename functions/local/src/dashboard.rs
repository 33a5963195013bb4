//! The pages of `tailspan serve`: what `dashboard/` was built to, packed into the program.
//!
//! Every answer carries a policy that lets the page run its own scripts and speak to its own server, and nothing else: what agents,
//! models and tools wrote is shown there. The pages hold no data, so they ask for no token; what they ask the API for does.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header::HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use tailspan_service::error::ApiError;
use xxhash_rust::xxh3::xxh3_128;

/// Path in `dashboard/dist`, the file, the file in gzip; sorted by path. Written by build.rs.
static BUILT_IN: &[(&str, &[u8], &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Scripts, styles and requests of this origin only; no inline script, no markup out of text, no frame around it.
///
/// `svelte-trusted-html` is the one policy that makes markup: the templates that Svelte compiled.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>Tailspan</title>
<h1>Tailspan runs, its dashboard was not built</h1>
<p>This program was compiled without the pages. With Node 20 or newer, in the repository:</p>
<pre>scripts/run</pre>
<p>or, to build it alone:</p>
<pre>cd dashboard &amp;&amp; npm ci &amp;&amp; npm run build &amp;&amp; cd .. &amp;&amp; cargo build</pre>
<p>All else is there: the <a href=\"/docs\">API</a>, and <code>tailspan tail</code> in a terminal.</p>
</html>
";

/// The files of the pages, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// By path.
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    path: Cow<'static, str>,
    whole: Bytes,
    gzip: Bytes,
    /// Of the whole one; the packed one has its own.
    tag: u128,
}

impl Pages {
    /// Those that the program was built with.
    pub(crate) fn built_in() -> Self {
        let file = |(path, whole, gzip): &(&'static str, &'static [u8], &'static [u8])| File {
            path: Cow::Borrowed(path),
            whole: Bytes::from_static(whole),
            gzip: Bytes::from_static(gzip),
            tag: xxh3_128(whole),
        };
        Self {
            files: BUILT_IN.iter().map(file).collect(),
        }
    }

    /// Those of a folder as it is now, for whoever works on them.
    ///
    /// # Errors
    ///
    /// The folder, or a file in it, cannot be read; or it has no `index.html`.
    pub(crate) fn of_folder(root: &Path) -> anyhow::Result<Self> {
        let mut pages = Self::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let failed = || format!("cannot read the pages in {}", folder.display());
            for entry in std::fs::read_dir(&folder).with_context(failed)? {
                let entry = entry.with_context(failed)?;
                let path = entry.path();
                if entry.file_type().with_context(failed)?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let whole = std::fs::read(&path).with_context(failed)?;
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(&whole)?;
                let name = path.strip_prefix(root).unwrap_or(&path);
                pages.files.push(File {
                    path: Cow::Owned(name.to_string_lossy().into_owned()),
                    tag: xxh3_128(&whole),
                    whole: whole.into(),
                    gzip: gzip.finish()?.into(),
                });
            }
        }
        pages.files.sort_by(|a, b| a.path.cmp(&b.path));
        anyhow::ensure!(
            pages.find("index.html").is_some(),
            "{} has no index.html: is it dashboard/dist after `npm run build`?",
            root.display()
        );
        Ok(pages)
    }

    fn find(&self, path: &str) -> Option<&File> {
        let place = self
            .files
            .binary_search_by(|file| file.path.as_ref().cmp(path));
        place.ok().and_then(|at| self.files.get(at))
    }
}

/// The addresses of the pages (`dashboard/src/model/route.ts`) and what they are made of.
pub(crate) fn router(pages: Pages) -> Router {
    let index = get(index);
    Router::new()
        .route("/", index.clone())
        .route("/runs/{id}", index.clone())
        .route("/conversations/{session}", index.clone())
        .route("/compare", index.clone())
        .route("/evaluate", index)
        .route("/assets/{*path}", get(asset))
        .route("/favicon.svg", get(icon))
        .with_state(Arc::new(pages))
}

async fn index(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    match pages.find("index.html") {
        Some(file) => answer(file, &headers, "no-cache"),
        None => with_policy("text/html; charset=utf-8", NOT_BUILT),
    }
}

/// Their names change with what is in them.
async fn asset(
    State(pages): State<Arc<Pages>>,
    UrlPath(path): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    match pages.find(&format!("assets/{path}")) {
        Some(file) => answer(file, &headers, "public, max-age=31536000, immutable"),
        None => ApiError::not_found().into_response(),
    }
}

async fn icon(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    match pages.find("favicon.svg") {
        Some(file) => answer(file, &headers, "no-cache"),
        None => ApiError::not_found().into_response(),
    }
}

/// The file, in gzip for who takes it; 304 for who has it.
fn answer(file: &File, asked: &HeaderMap, cache: &'static str) -> Response {
    let packed = takes_gzip(asked);
    let tag = format!("\"{:032x}{}\"", file.tag, if packed { "-gzip" } else { "" });
    let known = asked.get_all(IF_NONE_MATCH).iter().any(|tags| {
        let tags = tags.to_str().unwrap_or_default();
        tags.split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
    });
    let mut response = match (known, packed) {
        (true, _) => with_policy(kind(&file.path), Body::empty()),
        (false, true) => with_policy(kind(&file.path), file.gzip.clone()),
        (false, false) => with_policy(kind(&file.path), file.whole.clone()),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    if known {
        headers.remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn with_policy(kind: &'static str, body: impl Into<Body>) -> Response {
    const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
    const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER, "same-origin"),
        (RESOURCE, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether `gzip`, or anything, is accepted with a weight that is not 0.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let weight = |coding: &str| {
        let lines = asked.get_all(ACCEPT_ENCODING).iter();
        let mut parts = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
        parts.find_map(|part| {
            let (name, weight) = part.split_once(';').unwrap_or((part, "q=1"));
            let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
            (name.trim().eq_ignore_ascii_case(coding)).then(|| weight.unwrap_or(0.0))
        })
    };
    weight("gzip").or_else(|| weight("*")).unwrap_or(0.0) > 0.0
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::http::Request;
    use tower::ServiceExt;

    fn pages() -> Router {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("assets")).unwrap();
        std::fs::write(folder.path().join("index.html"), "<p>page").unwrap();
        std::fs::write(folder.path().join("assets/a-1.js"), "run()").unwrap();
        router(Pages::of_folder(folder.path()).unwrap())
    }

    async fn ask(router: &Router, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, body)
    }

    #[tokio::test]
    async fn every_address_of_the_page_is_answered_with_it_and_its_policy() {
        let router = pages();
        for path in [
            "/",
            "/runs/a%2Fb",
            "/runs/x?view=graph",
            "/conversations/c",
            "/compare?a=1",
            "/evaluate",
        ] {
            let (status, headers, body) = ask(&router, path, &[]).await;
            assert_eq!((status, &body[..]), (200, &b"<p>page"[..]), "{path}");
            assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY, "{path}");
            assert_eq!(headers[CACHE_CONTROL], "no-cache");
        }
        for path in [
            "/runs",
            "/nothing",
            "/assets/none.js",
            "/assets/../index.html",
            "/assets/%2e%2e/index.html",
        ] {
            assert_eq!(ask(&router, path, &[]).await.0, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn files_come_packed_where_that_is_taken_and_not_again_where_they_are_known() {
        let router = pages();
        let (_, plain, body) = ask(&router, "/assets/a-1.js", &[("accept-encoding", "br")]).await;
        assert_eq!(&body[..], b"run()");
        assert!(plain.get(CONTENT_ENCODING).is_none());
        assert_eq!(plain[CONTENT_TYPE], "text/javascript; charset=utf-8");
        let taken = [("accept-encoding", "deflate, gzip;q=0.5")];
        let (_, packed, _) = ask(&router, "/assets/a-1.js", &taken).await;
        assert_eq!(packed[CONTENT_ENCODING], "gzip");
        assert_ne!(plain[ETAG], packed[ETAG]);
        let refused = [("accept-encoding", "gzip;q=0, *")];
        let (_, refused, _) = ask(&router, "/assets/a-1.js", &refused).await;
        assert!(refused.get(CONTENT_ENCODING).is_none());
        let tag = plain[ETAG].to_str().unwrap();
        let known = [("if-none-match", tag)];
        let (status, _, body) = ask(&router, "/assets/a-1.js", &known).await;
        assert_eq!((status, body.len()), (304, 0));
    }

    #[tokio::test]
    async fn a_program_without_pages_says_how_to_build_them() {
        let router = router(Pages::default());
        let (status, headers, body) = ask(&router, "/", &[]).await;
        assert_eq!(status, 200);
        assert!(String::from_utf8_lossy(&body).contains("npm run build"));
        assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(ask(&router, "/favicon.svg", &[]).await.0, 404);
    }
}
