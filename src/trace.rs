//! Traces: spans of this crate, and of nobody else, to a collector (OTLP over
//! HTTP, JSON).
//!
//! Only spans with the target [`TARGET`] leave; they hold ids, parties, kinds
//! and counts. Without an endpoint no subscriber asks for them, so they are not
//! made at all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Settings;

/// The target of every span that may leave.
pub const TARGET: &str = "sivi_gateway::trace";

/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long spans that are left get when the daemon stops.
const LAST: Duration = Duration::from_secs(5);

/// The way to the collector.
pub struct Traces(SdkTracerProvider);

/// Why no traces can be sent.
#[derive(Debug)]
pub struct TraceError;

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trace.endpoint: the address or the HTTPS client cannot be used")
    }
}

impl std::error::Error for TraceError {}

impl Traces {
    /// The way to the collector that the settings name, if any. Sends on
    /// `runtime`.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn open(settings: &Settings, runtime: Handle) -> Result<Option<Self>, TraceError> {
        let Some(endpoint) = &settings.trace.endpoint else {
            return Ok(None);
        };
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| TraceError)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(OnRuntime { client, runtime })
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!(
                "{}/v1/traces",
                endpoint.expose().trim_end_matches('/')
            ))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|_| TraceError)?;
        let resource = Resource::builder_empty()
            .with_service_name("sivi-gateway")
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        Ok(Some(Self(provider)))
    }

    /// Listens to the spans of this crate.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.0.tracer("sivi-gateway");
        let ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == TARGET;
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(ours))
    }

    /// Sends what is left.
    pub async fn close(self) {
        let last = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST));
        if !matches!(last.await, Ok(Ok(()))) {
            tracing::warn!("The last spans did not reach the collector");
        }
    }
}

/// Makes `span` a child of the span that `header` tells of (W3C Trace Context),
/// if it tells of one.
pub fn follow<'h>(span: &Span, header: &dyn Fn(&str) -> Option<&'h str>) {
    if span.is_disabled() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&Headers(header));
    // Without a collector there is nobody to tell.
    drop(span.set_parent(parent));
}

struct Headers<'f, 'h>(&'f dyn Fn(&str) -> Option<&'h str>);

impl Extractor for Headers<'_, '_> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }

    fn keys(&self) -> Vec<&str> {
        ["traceparent", "tracestate"]
            .into_iter()
            .filter(|key| (self.0)(key).is_some())
            .collect()
    }
}

/// Spans are sent from a thread of their own, where the client has no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for OnRuntime {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Sending<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            Ok::<_, reqwest::Error>(response)
        });
        Box::pin(async move { Ok(sending.await??) })
    }
}
