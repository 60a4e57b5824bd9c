//! Traces: spans of this crate, and of nobody else, to a collector (OTLP over
//! HTTP, JSON).
//!
//! Only spans with the target [`TARGET`] leave; they hold ids, parties, kinds
//! and counts. Without an endpoint no subscriber asks for them, so they are not
//! made at all. Of a caller who is known the trace that it names is gone on
//! with, and nothing else that it sends leaves: `tracestate` is free text.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Settings;

/// The target of every span that may leave. It is no module, so that what this
/// one says reaches the log.
pub const TARGET: &str = "sivi_gateway::span";
/// The header of a caller that names its trace (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

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
        let Some(exporter) = exporter(settings, runtime)? else {
            return Ok(None);
        };
        let resource = Resource::builder_empty()
            .with_service_name("sivi-gateway")
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            // Whatever a caller wants to have recorded.
            .with_sampler(Sampler::AlwaysOn)
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

/// Whether the way to the collector can be opened; sends nothing.
///
/// # Errors
///
/// [`TraceError`].
pub fn check(settings: &Settings, runtime: Handle) -> Result<(), TraceError> {
    exporter(settings, runtime).map(drop)
}

fn exporter(settings: &Settings, runtime: Handle) -> Result<Option<SpanExporter>, TraceError> {
    let Some(endpoint) = &settings.trace.endpoint else {
        return Ok(None);
    };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        // The environment is not a setting of ours.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|_| TraceError)?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime {
            client,
            runtime,
            failing: Arc::default(),
        })
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(format!(
            "{}/v1/traces",
            endpoint.expose().trim_end_matches('/')
        ))
        .with_timeout(TIMEOUT)
        .build();
    exporter.map(Some).map_err(|_| TraceError)
}

/// Makes `span` a child of the span that the `traceparent` of a known caller
/// tells of (W3C Trace Context), if it tells of one. `span` must not have been
/// entered.
pub fn follow<'h>(span: &Span, header: &dyn Fn(&str) -> Option<&'h str>) {
    if span.is_disabled() {
        return;
    }
    let named = Named(header(TRACEPARENT));
    let parent = TraceContextPropagator::new().extract(&named);
    // Without a collector there is nobody to tell.
    drop(span.set_parent(parent));
}

/// The trace that a caller names, and nothing else.
struct Named<'h>(Option<&'h str>);

impl Extractor for Named<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.map(|_| TRACEPARENT).into_iter().collect()
    }
}

/// Spans are sent from a thread of their own, where the client has no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the collector did not take the spans of last time.
    failing: Arc<AtomicBool>,
}

impl OnRuntime {
    /// Says so when the collector stops or begins to take spans, once.
    fn note(failing: &AtomicBool, sent: &Result<Response<Bytes>, reqwest::Error>) {
        let fault = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(cause) if cause.is_timeout() => Some("it does not answer in time".to_owned()),
            Err(cause) if cause.is_connect() => Some("it cannot be reached".to_owned()),
            Err(_) => Some("the connection broke off".to_owned()),
        };
        let failed_before = failing.swap(fault.is_some(), Ordering::AcqRel);
        match fault {
            Some(fault) if !failed_before => {
                tracing::warn!("The trace collector takes no spans; they are lost: {fault}");
            }
            None if failed_before => tracing::info!("The trace collector takes spans again"),
            Some(_) | None => {}
        }
    }
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
        let (client, failing) = (self.client.clone(), Arc::clone(&self.failing));
        let sending = self.runtime.spawn(async move {
            let sent = send(&client, request).await;
            Self::note(&failing, &sent);
            sent
        });
        Box::pin(async move { Ok(sending.await??) })
    }
}

async fn send(
    client: &reqwest::Client,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, reqwest::Error> {
    let answer = client.execute(request.try_into()?).await?;
    let status = answer.status();
    let mut response = Response::new(answer.bytes().await?);
    *response.status_mut() = status;
    Ok(response)
}
