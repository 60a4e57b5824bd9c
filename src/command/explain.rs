//! `explain`: what would become of a message, without persons.

use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{ExplainArguments, Failure, Format, on_runtime, open};
use crate::clock::Clock;
use crate::domain::PartyId;
use crate::setup::Current;

pub(super) fn explain(
    config: Option<&Path>,
    asked: &ExplainArguments,
    format: Format,
) -> Result<(), Failure> {
    let body = std::fs::read(&asked.file)
        .map_err(|cause| Failure::environment(format!("{}: {cause}", asked.file.display())))?;
    let party = PartyId::parse(&asked.party).map_err(|_| unknown(&asked.party))?;
    let clock = match asked.as_of {
        None => Clock::system(),
        Some(day) => Clock::manual(noon(day)?),
    };
    let report = on_runtime(async {
        let base = open(config, clock).await?;
        let (_replace, current) = Current::new(base.setup().await?);
        let setup = current.get();
        let intake = base.intake(current);
        let explained = crate::receive::explain(&intake, &setup, &party, &body).await;
        explained.map_err(|cause| Failure::No(cause.to_string()))
    })?;
    match format {
        Format::Json => println!("{report}"),
        Format::Text => print!("{}", as_text(&report)),
    }
    Ok(())
}

fn unknown(party: &str) -> Failure {
    Failure::No(format!("there is no party {party:?}"))
}

fn noon(day: jiff::civil::Date) -> Result<jiff::Timestamp, Failure> {
    let amsterdam = TimeZone::get("Europe/Amsterdam").map_err(Failure::environment)?;
    let noon = day
        .at(12, 0, 0, 0)
        .to_zoned(amsterdam)
        .map_err(Failure::environment)?;
    Ok(noon.timestamp())
}

/// The report for a person.
#[must_use]
#[expect(
    clippy::indexing_slicing,
    reason = "reading a JSON value by key gives null, never a panic"
)]
pub fn as_text(report: &Value) -> String {
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let list = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let mut lines = vec![
        format!(
            "policy {}, {}",
            word(&report["policy_version"]),
            word(&report["pairing"])
        ),
        if report["accepted"] == true {
            "would be accepted"
        } else {
            "would be refused"
        }
        .to_owned(),
    ];
    for finding in list("findings") {
        let place = match finding["line"].as_u64() {
            Some(line) if line > 0 => format!(" at {line}:{}", finding["column"]),
            _ => String::new(),
        };
        lines.push(format!(
            "  {} {}{place}: {}",
            word(&finding["severity"]),
            word(&finding["code"]),
            word(&finding["message"])
        ));
    }
    for route in list("routes") {
        lines.push(format!(
            "route to {} ({}): {}, {} persons pass, {} withheld, {} elements stripped",
            word(&route["to"]),
            word(&route["domain"]),
            if route["sends"] == true {
                "sends"
            } else {
                "sends nothing"
            },
            route["persons_passed"],
            route["persons_withheld"],
            route["elements_stripped"],
        ));
        for rule in route["rules"].as_array().into_iter().flatten() {
            let row = rule["row"]
                .as_str()
                .map(|row| format!(" {row}"))
                .unwrap_or_default();
            lines.push(format!(
                "  {} × {}{row}",
                rule["count"],
                word(&rule["rule"])
            ));
        }
    }
    for part in list("parked") {
        lines.push(format!(
            "parked: {}, {} persons",
            word(&part["reason"]),
            part["persons"]
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}
