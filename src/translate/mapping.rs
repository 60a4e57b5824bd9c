//! A mapping: the answers about one party's dialect.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{Action, IdRule, Pairing};
use crate::domain::{Code, Severity};
use crate::validate::Tolerance;

/// How one party's messages differ from the standard. Made by
/// [`super::Mappings::load`]; the default is the one without any difference
/// that `mappings/default.toml` also describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub(super) editions: Vec<String>,
    pub(super) root_aliases: Vec<String>,
    pub(super) missing_namespace: bool,
    pub(super) empty_is_absent: bool,
    pub(super) free_text: FreeText,
    pub(super) sentinel_dates: Vec<String>,
    pub(super) versions: BTreeMap<String, Vec<String>>,
    pub(super) employer_key: EmployerKeyRule,
    pub(super) ids: BTreeMap<String, IdRule>,
    pub(super) codes: BTreeMap<String, CodeTable>,
    pub(super) only_zeros: BTreeSet<String>,
    pub(super) placeholders: BTreeMap<String, Vec<String>>,
    pub(super) severity: BTreeMap<Code, Option<Severity>>,
    pub(super) pairing: Pairing,
    pub(super) receipt: ReceiptRule,
}

/// Which tags of an employer say who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmployerKeyRule {
    /// Whatever the directory names.
    Any,
    /// These, and only when each is there.
    All(Vec<String>),
    /// The first of these that is there, alone.
    First(Vec<String>),
}

/// Other codes for the codes of one tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeTable {
    pub(super) replace: BTreeMap<String, String>,
    pub(super) otherwise: Otherwise,
}

/// What happens to a code that the table does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Otherwise {
    #[default]
    Keep,
    Reject,
    Replace(String),
}

/// What a code becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeOutcome<'a> {
    /// It stays as it is.
    Keep,
    /// This one takes its place.
    Replace(&'a str),
    /// The mapping does not know it: finding `code_rejected`.
    Reject,
}

/// What happens to free text (`VrTkst`) before policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeText {
    /// It is removed on receipt.
    Drop,
    /// The policy table decides.
    Policy,
}

/// When the party gets a Retourmelding, and with which codes. The meaning of
/// the codes is not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRule {
    /// When.
    pub send: SendReceipt,
    /// `SrtRetmldngCd` of an accepted message.
    pub positive: String,
    /// `SrtRetmldngCd` of a refused message.
    pub negative: String,
}

/// When a Retourmelding is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendReceipt {
    /// When the message asks for it in `OntvngstbevJN`.
    Honour,
    /// On every message.
    Always,
    /// On none.
    Never,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            editions: vec!["2017".to_owned()],
            root_aliases: vec!["Message".to_owned(), "Retourmelding".to_owned()],
            missing_namespace: true,
            empty_is_absent: true,
            free_text: FreeText::Policy,
            sentinel_dates: vec!["9999-12-31".to_owned()],
            versions: BTreeMap::new(),
            employer_key: EmployerKeyRule::Any,
            ids: BTreeMap::new(),
            codes: BTreeMap::new(),
            only_zeros: BTreeSet::from(["NrCom".to_owned()]),
            placeholders: BTreeMap::new(),
            severity: BTreeMap::new(),
            pairing: Pairing::default(),
            receipt: ReceiptRule {
                send: SendReceipt::Honour,
                positive: "02".to_owned(),
                negative: "03".to_owned(),
            },
        }
    }
}

impl Mapping {
    /// True when the party may send in this edition.
    #[must_use]
    pub fn accepts_edition(&self, edition: &str) -> bool {
        self.editions.iter().any(|known| known == edition)
    }

    /// True when a root of this name stands for the message that `BrCd` names.
    #[must_use]
    pub fn accepts_root(&self, name: &str) -> bool {
        self.root_aliases.iter().any(|known| known == name)
    }

    /// True when a message may come without its namespace.
    #[must_use]
    pub fn accepts_missing_namespace(&self) -> bool {
        self.missing_namespace
    }

    /// True when this `VnrBrCd` of `message` needs no warning, beside the
    /// edition's own.
    #[must_use]
    pub fn accepts_version(&self, message: &str, version: &str) -> bool {
        let known = self.versions.get(message);
        known.is_some_and(|known| known.iter().any(|v| v == version))
    }

    /// True when an element without text counts as not there.
    #[must_use]
    pub fn empty_is_absent(&self) -> bool {
        self.empty_is_absent
    }

    /// What happens to free text.
    #[must_use]
    pub fn free_text(&self) -> FreeText {
        self.free_text
    }

    /// When and how to answer with a Retourmelding.
    #[must_use]
    pub fn receipt(&self) -> &ReceiptRule {
        &self.receipt
    }

    /// How bad a finding of this rule is for this party; `None` when the
    /// mapping switches the rule off.
    #[must_use]
    pub fn severity(&self, code: Code) -> Option<Severity> {
        let set = self.severity.get(&code).copied();
        set.unwrap_or_else(|| Some(code.severity()))
    }

    /// True when `tag` of an employer may be used to find its tenant; `has`
    /// says which tags the employer fills.
    #[must_use]
    pub fn names_employer(&self, tag: &str, has: &dyn Fn(&str) -> bool) -> bool {
        match &self.employer_key {
            EmployerKeyRule::Any => true,
            EmployerKeyRule::All(tags) => {
                tags.iter().any(|known| known == tag) && tags.iter().all(|known| has(known))
            }
            EmployerKeyRule::First(tags) => tags
                .iter()
                .find(|known| has(known))
                .is_some_and(|first| first == tag),
        }
    }

    /// The rule by which employers are found.
    #[must_use]
    pub fn employer_key(&self) -> &EmployerKeyRule {
        &self.employer_key
    }

    /// The one spelling of an id in element `tag`.
    #[must_use]
    pub fn normalise_id<'a>(&self, tag: &str, text: &'a str) -> Cow<'a, str> {
        match self.ids.get(tag) {
            Some(rule) => rule.normalise(text),
            None => Cow::Borrowed(text),
        }
    }

    /// What the code in element `tag` becomes.
    #[must_use]
    pub fn code(&self, tag: &str, text: &str) -> CodeOutcome<'_> {
        let Some(table) = self.codes.get(tag) else {
            return CodeOutcome::Keep;
        };
        match (table.replace.get(text), &table.otherwise) {
            (Some(other), _) | (None, Otherwise::Replace(other)) => CodeOutcome::Replace(other),
            (None, Otherwise::Keep) => CodeOutcome::Keep,
            (None, Otherwise::Reject) => CodeOutcome::Reject,
        }
    }

    /// True when a date, with or without a zone, stands for "no date".
    #[must_use]
    pub fn is_sentinel(&self, date: &str) -> bool {
        let day = date.trim().get(..10).unwrap_or_default();
        self.sentinel_dates.iter().any(|known| known == day)
    }

    /// True when the text of element `tag` stands for "not known".
    #[must_use]
    pub fn is_placeholder(&self, tag: &str, text: &str) -> bool {
        let text = text.trim();
        let listed = self.placeholders.get(tag);
        listed.is_some_and(|listed| listed.iter().any(|known| known == text))
            || (self.only_zeros.contains(tag) && is_only_zeros(text))
    }

    /// What `VrwrkCd` asks for; `None` for a code without a meaning.
    #[must_use]
    pub fn action(&self, code: &str) -> Option<Action> {
        self.pairing.action(code)
    }

    /// Which code means which action, and whether anybody confirmed it.
    #[must_use]
    pub fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    /// The same mapping for a message that it was applied to already: what a
    /// code means and how severe a finding is, but no translation.
    #[must_use]
    pub fn without_translation(&self) -> Self {
        Self {
            ids: BTreeMap::new(),
            codes: BTreeMap::new(),
            sentinel_dates: Vec::new(),
            only_zeros: BTreeSet::new(),
            placeholders: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// What validation forgives the party.
    #[must_use]
    pub fn tolerance(&self) -> Tolerance {
        Tolerance {
            root_aliases: self.root_aliases.clone(),
            missing_namespace: self.missing_namespace,
            empty_is_absent: self.empty_is_absent,
            versions: self.versions.values().flatten().cloned().collect(),
            severity: self
                .severity
                .iter()
                .map(|(code, severity)| (*code, *severity))
                .collect(),
        }
    }

    /// Every tag that the mapping names, to be compared with the standard.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let employer = match &self.employer_key {
            EmployerKeyRule::Any => &[][..],
            EmployerKeyRule::All(tags) | EmployerKeyRule::First(tags) => tags,
        };
        let ids = self.ids.keys().chain(self.codes.keys());
        let values = self.only_zeros.iter().chain(self.placeholders.keys());
        ids.chain(values).chain(employer).map(String::as_str)
    }
}

/// True for zeros with at most spaces, dashes and a plus sign between them.
fn is_only_zeros(text: &str) -> bool {
    text.contains('0') && text.bytes().all(|byte| b"0 -+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_far_dates_are_no_values() {
        let mapping = Mapping::default();
        for (text, placeholder) in [
            ("0000000000", true),
            ("00-000 00", true),
            ("0", true),
            ("", false),
            ("-", false),
            ("0612345678", false),
        ] {
            assert_eq!(mapping.is_placeholder("NrCom", text), placeholder, "{text}");
            assert!(!mapping.is_placeholder("Huisnr", text));
        }
        assert!(mapping.is_sentinel("9999-12-31"));
        assert!(mapping.is_sentinel("9999-12-31+01:00"));
        assert!(!mapping.is_sentinel("2018-01-01"));
        assert!(!mapping.is_sentinel("é"));
    }

    #[test]
    fn a_code_table_replaces_keeps_or_rejects() {
        let table = |otherwise| CodeTable {
            replace: BTreeMap::from([("7".to_owned(), "99".to_owned())]),
            otherwise,
        };
        let mapping = Mapping {
            codes: BTreeMap::from([
                ("A".to_owned(), table(Otherwise::Keep)),
                ("B".to_owned(), table(Otherwise::Reject)),
                ("C".to_owned(), table(Otherwise::Replace("01".to_owned()))),
            ]),
            ..Mapping::default()
        };
        assert_eq!(mapping.code("A", "7"), CodeOutcome::Replace("99"));
        assert_eq!(mapping.code("A", "8"), CodeOutcome::Keep);
        assert_eq!(mapping.code("B", "8"), CodeOutcome::Reject);
        assert_eq!(mapping.code("C", "8"), CodeOutcome::Replace("01"));
        assert_eq!(mapping.code("D", "7"), CodeOutcome::Keep);
    }

    #[test]
    fn the_employer_rule_hides_tags_that_do_not_count() {
        let tags = || vec!["Lhnr".to_owned(), "HndlsnmOrg".to_owned()];
        let with = |employer_key| Mapping {
            employer_key,
            ..Mapping::default()
        };
        let both = |_: &str| true;
        let name_only = |tag: &str| tag == "HndlsnmOrg";
        let all = with(EmployerKeyRule::All(tags()));
        assert!(all.names_employer("Lhnr", &both));
        assert!(!all.names_employer("HndlsnmOrg", &name_only));
        let first = with(EmployerKeyRule::First(tags()));
        assert!(!first.names_employer("HndlsnmOrg", &both));
        assert!(first.names_employer("HndlsnmOrg", &name_only));
        assert!(with(EmployerKeyRule::Any).names_employer("IdWrkgvrUWV", &both));
    }
}
