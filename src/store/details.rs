//! The sealed part of a receipt: the sender's reference, what was found, and
//! where the message was meant to go.

use serde_json::{Value, json};

use super::error::Error;
use super::ring::Ring;
use crate::domain::{Code, Domain, Finding, Severity};
use crate::seal::{Keys, NoKey, Place, Scope};

/// What a receipt holds beside its columns.
pub(super) struct Details<'a> {
    pub(super) reference: &'a str,
    pub(super) findings: &'a [Finding],
    pub(super) routed: &'a [Domain],
}

/// The same, read back.
pub(super) struct OpenDetails {
    pub(super) reference: String,
    pub(super) findings: Vec<Finding>,
    pub(super) routed: Vec<Domain>,
}

fn place(message_id: &str) -> Place<'_> {
    Place {
        table: "message",
        row: message_id.as_bytes(),
        column: "details",
    }
}

impl Details<'_> {
    pub(super) fn seal(&self, keys: &Keys, message_id: &str) -> Result<Vec<u8>, NoKey> {
        let routed = self.routed.iter().map(|domain| domain.as_str());
        let plain = json!({
            "reference": self.reference,
            "findings": self.findings.iter().map(finding_to_json).collect::<Vec<_>>(),
            "routed": routed.collect::<Vec<_>>(),
        });
        let place = place(message_id);
        keys.seal(Scope::Installation, place, plain.to_string().as_bytes())
    }
}

impl OpenDetails {
    pub(super) async fn open(ring: &Ring, message_id: &str, sealed: &[u8]) -> Result<Self, Error> {
        let plain = ring.unseal(place(message_id), sealed).await;
        let plain = plain.map_err(|cause| cause.damaged("receipt"))?;
        let json = serde_json::from_slice(&plain).ok();
        json.as_ref()
            .and_then(Self::from_json)
            .ok_or(Error::Damaged { what: "receipt" })
    }

    fn from_json(json: &Value) -> Option<Self> {
        let findings = json.get("findings")?.as_array()?.iter();
        let routed = json.get("routed")?.as_array()?.iter();
        Some(Self {
            reference: json.get("reference")?.as_str()?.to_owned(),
            // A code of a newer version is left out: the receipt still counts.
            findings: findings.filter_map(finding_from_json).collect(),
            routed: routed
                .map(|domain| domain.as_str()?.parse().ok())
                .collect::<Option<_>>()?,
        })
    }
}

fn finding_to_json(finding: &Finding) -> Value {
    json!({
        "code": finding.code.as_str(),
        "severity": finding.severity.as_str(),
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "expected": finding.expected,
    })
}

fn finding_from_json(json: &Value) -> Option<Finding> {
    Some(Finding {
        code: Code::from_code(json.get("code")?.as_str()?)?,
        severity: match json.get("severity")?.as_str()? {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            _ => return None,
        },
        path: json.get("path")?.as_str()?.to_owned(),
        line: json.get("line")?.as_u64()?,
        column: json.get("column")?.as_u64()?,
        expected: json.get("expected")?.as_str().map(str::to_owned),
    })
}
