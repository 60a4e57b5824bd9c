//! Errors as a client sees them: RFC 9457 problem documents.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{Finding, Language};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $status:ident, $slug:literal, $title:literal, $dutch:literal;)+) => {
        /// What went wrong, as a stable `urn:` type with its status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $variant),+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }

            /// The stable name behind `urn:sivi-gateway:problem:`.
            #[must_use]
            pub fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug),+ }
            }

            /// A short sentence for a person.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            /// The same sentence in Dutch.
            #[must_use]
            pub fn dutch(self) -> &'static str {
                match self { $(Self::$variant => $dutch),+ }
            }
        }
    };
}

kinds! {
    /// Not XML, or a construct that is forbidden.
    Malformed = BAD_REQUEST, "malformed", "The body is not acceptable XML", "De inhoud is geen aanvaardbare XML";
    /// A query parameter or JSON body that the contract does not allow.
    BadRequest = BAD_REQUEST, "bad-request", "The request does not fit the contract", "Het verzoek past niet bij de afspraken";
    /// No or wrong credentials.
    Unauthorized = UNAUTHORIZED, "unauthorized", "A valid API key or client certificate is needed", "Een geldige API-sleutel of een clientcertificaat is nodig";
    /// Not this party's to send.
    Forbidden = FORBIDDEN, "forbidden", "This party may not send this message", "Deze partij mag dit bericht niet sturen";
    /// Nothing there, or not this party's.
    NotFound = NOT_FOUND, "not-found", "There is nothing here", "Hier is niets";
    /// The path has other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not know this method", "Dit pad kent deze methode niet";
    /// The same `Berrefnr` with other content.
    ReferenceReused = CONFLICT, "reference-reused", "The reference was used before for another message", "De referentie is eerder voor een ander bericht gebruikt";
    /// The lease ran out or belongs to somebody else.
    LeaseLost = CONFLICT, "lease-lost", "The lease is not the current one", "De uitgifte is niet de huidige";
    /// A dead letter that what is newer went before.
    Overtaken = CONFLICT, "overtaken", "A newer message about the same case went before it", "Een nieuwer bericht over hetzelfde geval ging voor";
    /// The message was erased.
    Erased = GONE, "erased", "The message was erased", "Het bericht is gewist";
    /// Larger than allowed.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is larger than allowed", "De inhoud is groter dan toegestaan";
    /// Not XML by its content type, or an unknown content encoding.
    UnsupportedType = UNSUPPORTED_MEDIA_TYPE, "unsupported-type", "The body must be application/xml or text/xml", "De inhoud moet application/xml of text/xml zijn";
    /// Invalid against the schema or a rule.
    Invalid = UNPROCESSABLE_ENTITY, "invalid", "The message is not valid", "Het bericht is niet geldig";
    /// Too many requests.
    RateLimited = TOO_MANY_REQUESTS, "rate-limited", "Too many requests", "Te veel verzoeken";
    /// Cannot store now.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "The gateway cannot store now; nothing was accepted", "De gateway kan nu niet opslaan; er is niets aangenomen";
    /// The client was too slow.
    Timeout = REQUEST_TIMEOUT, "timeout", "The request took too long to arrive", "Het verzoek kwam te langzaam binnen";
    /// A fault of the gateway.
    Internal = INTERNAL_SERVER_ERROR, "internal", "The gateway could not finish the request", "De gateway kon het verzoek niet afmaken";
}

/// An error as a client sees it (RFC 9457, `application/problem+json`).
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: Option<String>,
    findings: Vec<Finding>,
    retry_after: Option<Duration>,
    language: Language,
    error_id: String,
    close: bool,
}

impl Problem {
    /// A problem without details.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let retry_after =
            matches!(kind, Kind::RateLimited | Kind::Unavailable).then_some(Duration::from_secs(5));
        Self {
            kind,
            detail: None,
            findings: Vec::new(),
            retry_after,
            language: Language::English,
            error_id: crate::clock::new_id(),
            close: false,
        }
    }

    /// A fault of ours: the cause goes to the log, the client gets the id.
    #[must_use]
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        let problem = Self::new(Kind::Internal);
        tracing::error!(error.id = %problem.error_id, "Request failed: {cause}");
        problem
    }

    /// With one more sentence; never a value of the message.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With what is wrong with the message.
    #[must_use]
    pub fn findings(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    /// In this language.
    #[must_use]
    pub fn language(mut self, language: Language) -> Self {
        self.language = language;
        self
    }

    /// With another pause than the default one.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Closes the connection after the answer: the rest of the body is unread.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong with the message.
    #[must_use]
    pub fn all_findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Adds the headers that hold for every rendering of this problem.
    pub fn add_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        if let Some(pause) = self.retry_after {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(pause.as_secs().max(1)),
            );
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    error_id: &'a str,
    findings: Vec<Value>,
}

/// A finding as answers show it.
#[must_use]
pub fn finding_json(finding: &Finding, language: Language) -> Value {
    json!({
        "code": finding.code.as_str(),
        "severity": finding.severity.as_str(),
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "message": finding.message(language),
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            kind: format!("urn:sivi-gateway:problem:{}", self.kind.slug()),
            title: match self.language {
                Language::English => self.kind.title(),
                Language::Dutch => self.kind.dutch(),
            },
            status: self.kind.status().as_u16(),
            detail: self.detail.as_deref(),
            error_id: &self.error_id,
            findings: self
                .findings
                .iter()
                .map(|f| finding_json(f, self.language))
                .collect(),
        };
        let mut response = (self.kind.status(), Json(document)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        self.add_headers(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn a_problem_names_its_type_its_findings_and_when_to_come_back() {
        let problem = Problem::new(Kind::Unavailable).findings(vec![Finding::new(Code::NoRoute)]);
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["retry-after"], "5");
    }

    #[test]
    fn every_kind_has_its_own_slug() {
        let slugs: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
    }
}
