//! A mapping file as it is written, and how it changes the mapping that it
//! extends.
//!
//! A table of the file replaces the same table of the mapping below it, one
//! tag, code or message at a time; a list replaces the whole list.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::Deserialize;

use super::action::is_two_digits;
use super::mapping::{CodeTable, EmployerKeyRule, FreeText, Mapping, Otherwise, SendReceipt};
use super::{Case, IdRule, LeadingZeros, Pairing};
use crate::domain::{Code, Severity};
use crate::toml_file::{Fault, TomlFile};

/// The messages that `[versions]` may name.
const MESSAGES: [&str; 8] = [
    "AanvraagPreventieveDiensten",
    "Afspraken",
    "Dienstverbanden",
    "Documenten",
    "Retourmelding1",
    "Verzuimmeldingen",
    "WerkgeversGegevensBasisregistratie",
    "WerknemersGegevens",
];

/// Rules whose severity a mapping may set. Those that protect privacy, decide
/// about the schema or park a part are not among them.
const ADJUSTABLE: [Code; 16] = [
    Code::RootUnexpected,
    Code::NamespaceUnexpected,
    Code::VersionUnexpected,
    Code::CodeUnknown,
    Code::DateOrder,
    Code::DateFuture,
    Code::ClosedWithoutRecovery,
    Code::OpenWithRecovery,
    Code::PercentageRange,
    Code::PartialFromEmployer,
    Code::CaseNumberGap,
    Code::CaseNumberBack,
    Code::DuplicateReport,
    Code::ReferenceDate,
    Code::BsnInvalid,
    Code::Placeholder,
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// The mapping below this one; `default` unless it says otherwise.
    pub(super) extends: Option<String>,
    editions: Option<Vec<String>>,
    root_aliases: Option<Vec<String>>,
    missing_namespace: Option<bool>,
    empty_is_absent: Option<bool>,
    free_text: Option<String>,
    sentinel_dates: Option<Vec<String>>,
    versions: BTreeMap<String, Vec<String>>,
    employer_key: Option<WrittenEmployerKey>,
    ids: BTreeMap<String, WrittenId>,
    codes: BTreeMap<String, BTreeMap<String, String>>,
    placeholders: WrittenPlaceholders,
    severity: BTreeMap<String, String>,
    actions: Option<WrittenActions>,
    receipt: WrittenReceipt,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEmployerKey {
    all: Option<Vec<String>>,
    first: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenId {
    trim: bool,
    case: String,
    strip: String,
    leading_zeros: String,
    prefix_remove: String,
    suffix_remove: String,
    prefix_add: String,
    suffix_add: String,
}

impl Default for WrittenId {
    fn default() -> Self {
        Self {
            trim: true,
            case: "keep".to_owned(),
            strip: String::new(),
            leading_zeros: "keep".to_owned(),
            prefix_remove: String::new(),
            suffix_remove: String::new(),
            prefix_add: String::new(),
            suffix_add: String::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPlaceholders {
    only_zeros: Option<BTreeSet<String>>,
    values: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenActions {
    report: String,
    change: String,
    correct: String,
    delete: String,
    synchronise: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenReceipt {
    send: Option<String>,
    positive: Option<String>,
    negative: Option<String>,
}

impl Written {
    /// Changes `mapping` to what this file says.
    pub(super) fn apply(self, file: &TomlFile, mapping: &mut Mapping) -> Result<(), Fault> {
        set(&mut mapping.root_aliases, self.root_aliases);
        set(&mut mapping.missing_namespace, self.missing_namespace);
        set(&mut mapping.empty_is_absent, self.empty_is_absent);
        set(&mut mapping.only_zeros, self.placeholders.only_zeros);
        mapping.placeholders.extend(self.placeholders.values);
        if let Some(editions) = self.editions {
            if editions.is_empty() {
                return Err(file.fault("editions", "names no edition"));
            }
            mapping.editions = editions;
        }
        if let Some(word) = self.free_text {
            mapping.free_text = match word.as_str() {
                "drop" => FreeText::Drop,
                "policy" => FreeText::Policy,
                _ => return Err(file.fault("free_text", "must be drop or policy")),
            };
        }
        if let Some(dates) = self.sentinel_dates {
            let broken = |date: &String| date.len() != 10 || date.parse::<Date>().is_err();
            if let Some(at) = dates.iter().position(broken) {
                let key = format!("sentinel_dates[{}]", at + 1);
                return Err(file.fault(&key, "must be a date such as \"9999-12-31\""));
            }
            mapping.sentinel_dates = dates;
        }
        apply_versions(self.versions, file, mapping)?;
        apply_employer_key(self.employer_key, file, mapping)?;
        for (tag, rule) in self.ids {
            let rule = id_rule(rule)
                .map_err(|(key, problem)| file.fault(&format!("ids.{tag}{key}"), problem))?;
            mapping.ids.insert(tag, rule);
        }
        for (tag, table) in self.codes {
            mapping.codes.insert(tag, code_table(table));
        }
        apply_severity(self.severity, file, mapping)?;
        if let Some(actions) = self.actions {
            mapping.pairing = pairing(actions)
                .ok_or_else(|| file.fault("actions", "needs five different codes of two digits"))?;
        }
        apply_receipt(self.receipt, file, mapping)
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn apply_versions(
    versions: BTreeMap<String, Vec<String>>,
    file: &TomlFile,
    mapping: &mut Mapping,
) -> Result<(), Fault> {
    for (message, versions) in versions {
        let key = format!("versions.{message}");
        if !MESSAGES.contains(&message.as_str()) {
            let problem = format!("no such message: expected one of {}", MESSAGES.join(", "));
            return Err(file.fault(&key, problem));
        }
        let five_digits = |v: &String| v.len() == 5 && v.bytes().all(|b| b.is_ascii_digit());
        if !versions.iter().all(five_digits) {
            return Err(file.fault(&key, "must be versions of five digits"));
        }
        mapping.versions.insert(message, versions);
    }
    Ok(())
}

fn apply_employer_key(
    written: Option<WrittenEmployerKey>,
    file: &TomlFile,
    mapping: &mut Mapping,
) -> Result<(), Fault> {
    let Some(written) = written else {
        return Ok(());
    };
    mapping.employer_key = match (written.all, written.first) {
        (Some(tags), None) if !tags.is_empty() => EmployerKeyRule::All(tags),
        (None, Some(tags)) if !tags.is_empty() => EmployerKeyRule::First(tags),
        _ => {
            let problem = "needs either all or first, with at least one tag";
            return Err(file.fault("employer_key", problem));
        }
    };
    Ok(())
}

fn id_rule(written: WrittenId) -> Result<IdRule, (&'static str, &'static str)> {
    let case = match written.case.as_str() {
        "keep" => Case::Keep,
        "lower" => Case::Lower,
        "upper" => Case::Upper,
        _ => return Err((".case", "must be lower, upper or keep")),
    };
    let rule = IdRule {
        trim: written.trim,
        case,
        strip: written.strip,
        leading_zeros: leading_zeros(&written.leading_zeros)
            .ok_or((".leading_zeros", "must be keep, strip or pad:1 to pad:40"))?,
        prefix_remove: written.prefix_remove,
        suffix_remove: written.suffix_remove,
        prefix_add: written.prefix_add,
        suffix_add: written.suffix_add,
    };
    match rule.contradiction() {
        Some(problem) => Err(("", problem)),
        None => Ok(rule),
    }
}

fn leading_zeros(word: &str) -> Option<LeadingZeros> {
    match word {
        "keep" => Some(LeadingZeros::Keep),
        "strip" => Some(LeadingZeros::Strip),
        _ => {
            let width = word.strip_prefix("pad:")?.parse().ok()?;
            (1..=40)
                .contains(&width)
                .then_some(LeadingZeros::Pad(width))
        }
    }
}

fn code_table(mut replace: BTreeMap<String, String>) -> CodeTable {
    let otherwise = match replace.remove("default") {
        None => Otherwise::Keep,
        Some(word) if word == "reject" => Otherwise::Reject,
        Some(code) => Otherwise::Replace(code),
    };
    CodeTable { replace, otherwise }
}

fn apply_severity(
    written: BTreeMap<String, String>,
    file: &TomlFile,
    mapping: &mut Mapping,
) -> Result<(), Fault> {
    for (name, word) in written {
        let key = format!("severity.{name}");
        let Some(code) = Code::from_code(&name) else {
            return Err(file.fault(&key, "no such finding: see docs/findings.md"));
        };
        let severity = match word.as_str() {
            "error" => Some(Severity::Error),
            "warning" => Some(Severity::Warning),
            "off" => None,
            _ => return Err(file.fault(&key, "must be error, warning or off")),
        };
        // A hint that a key may be a BSN may be silenced, but one key in
        // eleven looks like one by chance: it never stops a sick report.
        let hint = code == Code::BsnSuspect && severity != Some(Severity::Error);
        if !ADJUSTABLE.contains(&code) && !hint {
            return Err(file.fault(&key, "the severity of this finding is fixed"));
        }
        mapping.severity.insert(code, severity);
    }
    Ok(())
}

fn pairing(written: WrittenActions) -> Option<Pairing> {
    Pairing::set([
        written.report,
        written.change,
        written.correct,
        written.delete,
        written.synchronise,
    ])
}

fn apply_receipt(
    written: WrittenReceipt,
    file: &TomlFile,
    mapping: &mut Mapping,
) -> Result<(), Fault> {
    let rule = &mut mapping.receipt;
    if let Some(word) = written.send {
        rule.send = match word.as_str() {
            "honour" => SendReceipt::Honour,
            "always" => SendReceipt::Always,
            "never" => SendReceipt::Never,
            _ => return Err(file.fault("receipt.send", "must be honour, always or never")),
        };
    }
    set(&mut rule.positive, written.positive);
    set(&mut rule.negative, written.negative);
    if !is_two_digits(&rule.positive) || !is_two_digits(&rule.negative) {
        return Err(file.fault("receipt", "codes are two digits"));
    }
    if rule.positive == rule.negative {
        return Err(file.fault("receipt", "positive and negative must differ"));
    }
    Ok(())
}
