//! The policy as data: a table of elements and domains, and which elements
//! play a part in the rules beside it.
//!
//! `config/policy.tsv` and `config/policy.toml` are built in; a folder named
//! in the configuration replaces them. What the table does not name does not
//! leave. This module does not decide about persons.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::domain::Domain;
use crate::validate::{Editions, MessageSchema, Term};

const TABLE: &str = include_str!("../../config/policy.tsv");
const PARTS: &str = include_str!("../../config/policy.toml");
const COLUMNS: [&str; 8] = [
    "edition",
    "message",
    "path",
    "werkgever",
    "arbodienst",
    "bedrijfsarts",
    "verzekeraar",
    "reason",
];

/// What happens to one element on its way to one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Passes as it is.
    Pass,
    /// Stays behind.
    Strip,
    /// Written anew by the gateway.
    Write,
    /// Replaced by this text.
    Constant(String),
    /// The gate of the citizen service number.
    Bsn,
    /// Passes with a document of a kind that the tenant lists.
    Document,
    /// The message never goes to this domain.
    Never,
}

/// A tenant's setting that opens a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// `executor_name`: the name of who holds an appointment.
    ExecutorName,
    /// `document_names`: description and file name of a document.
    DocumentNames,
}

/// A cell, and the setting that turns it into [`Cell::Pass`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What holds by default.
    pub cell: Cell,
    /// What opens it.
    pub opener: Option<Opener>,
}

impl Rule {
    const DENY: Self = Self {
        cell: Cell::Strip,
        opener: None,
    };

    fn parse(text: &str) -> Option<Self> {
        let (cell, opener) = match text.split_once('?') {
            None => (text, None),
            Some((cell, "executor_name")) => (cell, Some(Opener::ExecutorName)),
            Some((cell, "document_names")) => (cell, Some(Opener::DocumentNames)),
            Some(_) => return None,
        };
        let cell = match cell {
            "P" => Cell::Pass,
            "S" => Cell::Strip,
            "W" => Cell::Write,
            "BSN" => Cell::Bsn,
            "DOC" => Cell::Document,
            "-" => Cell::Never,
            other => Cell::Constant(other.strip_prefix("T:constant=")?.to_owned()),
        };
        Some(Self { cell, opener })
    }
}

/// The rules of one message for one domain, by element.
#[derive(Debug)]
pub struct Sheet {
    rules: Vec<Rule>,
}

impl Sheet {
    /// The rule of an element of the schema that the sheet was made for.
    #[must_use]
    pub fn rule(&self, element: usize) -> &Rule {
        self.rules.get(element).unwrap_or(&Rule::DENY)
    }

    /// False when the message never goes to this domain.
    #[must_use]
    pub fn admits_message(&self) -> bool {
        self.rule(0).cell == Cell::Pass
    }
}

/// Elements that play a part in the rules beside the table, by tag.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// Where a citizen service number is looked for, and how.
    pub bsn: BsnParts,
    /// What a minimal message keeps.
    pub minimal: MinimalParts,
}

/// How elements are scanned for a citizen service number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BsnParts {
    /// A certain number refuses the message, a likely one is a warning.
    pub keys: HashSet<String>,
    /// A certain number is masked, a likely one is left.
    pub agreed: HashSet<String>,
    /// Not looked at.
    pub unscanned: HashSet<String>,
}

/// What a correction or withdrawal of a recovered person keeps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimalParts {
    /// Optional elements that stay.
    pub keep: HashSet<String>,
}

/// The whole policy, checked against the schemas.
#[derive(Clone, Debug)]
pub struct Policy {
    version: String,
    parts: Arc<Parts>,
    sheets: HashMap<(String, String), Arc<Sheets>>,
    window_days: i32,
}

/// The sheets of one message: one a domain, and the union of them.
#[derive(Debug)]
struct Sheets {
    by_domain: [Sheet; 4],
    any: Sheet,
}

/// Elements whose content nobody can scan for a number.
const MAY_BE_UNSCANNED: [&str; 3] = ["Lhnr", "Iban", "Datastring"];

/// What no file may change: everything else is looked at for numbers.
fn check_parts(parts: &Parts) -> Result<(), PolicyError> {
    let forbidden = |tag: &&String| !MAY_BE_UNSCANNED.contains(&tag.as_str());
    match parts.bsn.unscanned.iter().find(forbidden) {
        None => Ok(()),
        Some(tag) => Err(PolicyError {
            place: "policy.toml: bsn.unscanned".to_owned(),
            problem: format!("{tag} has to be looked at for citizen service numbers"),
        }),
    }
}

impl Sheets {
    /// The rules that no table may break: nothing for an insurer in this
    /// chain, no number, free text or bank account for anybody.
    fn check(&self, schema: &MessageSchema) -> Result<(), PolicyError> {
        let [.., insurer] = &self.by_domain;
        for (at, element) in schema.elements.iter().enumerate() {
            let stays = |sheet: &Sheet| {
                let rule = sheet.rule(at);
                let stays = matches!(rule.cell, Cell::Strip | Cell::Never | Cell::Bsn);
                stays && rule.opener.is_none()
            };
            let never = matches!(
                element.term,
                Some(Term::Bsn | Term::FreeText | Term::BankAccount)
            );
            if !stays(insurer) || (never && !self.by_domain.iter().all(stays)) {
                return Err(PolicyError {
                    place: format!("policy.tsv: {}", element.path),
                    problem: "this element may not pass, whatever the table says".to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Policy {
    /// Reads the policy and fits it to the schemas of `editions`.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the file, the line and what is wrong with it.
    pub fn load(
        folder: Option<&Path>,
        editions: &Editions,
        window_days: i32,
    ) -> Result<Self, PolicyError> {
        let table = text_of(folder, "policy.tsv", TABLE)?;
        let parts = text_of(folder, "policy.toml", PARTS)?;
        let parts: Parts = toml::from_str(&parts).map_err(|cause| PolicyError {
            place: "policy.toml".to_owned(),
            problem: cause.message().to_owned(),
        })?;
        let rows = Rows::parse(&table)?;
        let mut sheets = HashMap::new();
        for name in editions.names() {
            let Some(edition) = editions.get(name) else {
                continue;
            };
            for schema in edition.messages() {
                let key = (name.to_owned(), schema.name.clone());
                let fitted = rows.fit(name, schema);
                fitted.check(schema)?;
                sheets.insert(key, Arc::new(fitted));
            }
        }
        check_parts(&parts)?;
        Ok(Self {
            version: rows.version,
            parts: Arc::new(parts),
            sheets,
            window_days,
        })
    }

    /// The version that releases name.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Elements that play a part beside the table.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// How many days a recovered person is remembered.
    #[must_use]
    pub fn window_days(&self) -> i32 {
        self.window_days
    }

    /// The rules for a message to a domain; `None` means nothing leaves.
    #[must_use]
    pub fn sheet(&self, schema: &MessageSchema, edition: &str, domain: Domain) -> Option<&Sheet> {
        let sheets = self
            .sheets
            .get(&(edition.to_owned(), schema.name.clone()))?;
        let [werkgever, arbodienst, bedrijfsarts, verzekeraar] = &sheets.by_domain;
        Some(match domain {
            Domain::Werkgever => werkgever,
            Domain::Arbodienst => arbodienst,
            Domain::Bedrijfsarts => bedrijfsarts,
            Domain::Verzekeraar => verzekeraar,
        })
    }

    /// What at least one domain may have: the rules for parking.
    #[must_use]
    pub fn union_sheet(&self, schema: &MessageSchema, edition: &str) -> Option<&Sheet> {
        let sheets = self
            .sheets
            .get(&(edition.to_owned(), schema.name.clone()))?;
        Some(&sheets.any)
    }
}

/// The file of this name in the folder of `path`, which may also name
/// `policy.tsv` itself. What is not there stays built in, but for the table:
/// whoever sets a path wants that one.
fn text_of(path: Option<&Path>, name: &str, built_in: &str) -> Result<String, PolicyError> {
    let Some(path) = path else {
        return Ok(built_in.to_owned());
    };
    let folder = if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(Path::new(""))
    };
    let is_table = name == "policy.tsv";
    let path = if is_table && !path.is_dir() {
        path.to_owned()
    } else {
        folder.join(name)
    };
    if !is_table && !path.exists() {
        return Ok(built_in.to_owned());
    }
    std::fs::read_to_string(&path).map_err(|cause| PolicyError {
        place: path.display().to_string(),
        problem: cause.to_string(),
    })
}

/// The table as it stands in the file.
struct Rows {
    version: String,
    rules: HashMap<(String, String, String), [Rule; 4]>,
}

impl Rows {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let wrong = |line: usize, problem: String| PolicyError {
            place: format!("policy.tsv:{}", line + 1),
            problem,
        };
        let mut version = None;
        let mut rules = HashMap::new();
        let mut seen_columns = false;
        for (at, line) in text.lines().enumerate() {
            if let Some(comment) = line.strip_prefix('#') {
                version = comment
                    .trim()
                    .strip_prefix("version:")
                    .map(|v| v.trim().to_owned())
                    .or(version);
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            if !seen_columns {
                if fields != COLUMNS {
                    return Err(wrong(
                        at,
                        format!("the columns must be {}", COLUMNS.join(", ")),
                    ));
                }
                seen_columns = true;
                continue;
            }
            let [edition, message, path, a, b, c, d, _reason] = fields.as_slice() else {
                return Err(wrong(at, format!("{} columns instead of 8", fields.len())));
            };
            let cell = |text: &str| {
                Rule::parse(text).ok_or_else(|| wrong(at, format!("unknown cell {text:?}")))
            };
            let row = [cell(a)?, cell(b)?, cell(c)?, cell(d)?];
            let key = (
                (*edition).to_owned(),
                (*message).to_owned(),
                (*path).to_owned(),
            );
            if rules.insert(key, row).is_some() {
                return Err(wrong(
                    at,
                    "the element stands in the table twice".to_owned(),
                ));
            }
        }
        let version = version.ok_or_else(|| wrong(0, "no line `# version: …`".to_owned()))?;
        Ok(Self { version, rules })
    }

    fn fit(&self, edition: &str, schema: &MessageSchema) -> Sheets {
        let mut by_domain: [Vec<Rule>; 4] = Default::default();
        let mut any = Vec::with_capacity(schema.elements.len());
        for element in &schema.elements {
            let key = (
                edition.to_owned(),
                schema.name.clone(),
                element.path.clone(),
            );
            let row = match self.rules.get(&key) {
                // A doubtful element is accepted and never sent, whatever the table says.
                Some(row) if !element.doubtful => row.clone(),
                _ => [const { Rule::DENY }; 4],
            };
            any.push(union(&row));
            for (sheet, rule) in by_domain.iter_mut().zip(row) {
                sheet.push(rule);
            }
        }
        Sheets {
            by_domain: by_domain.map(|rules| Sheet { rules }),
            any: Sheet { rules: any },
        }
    }
}

/// What the most open domain does with an element. Documents count as passing:
/// the route decides when the part leaves its parking place. A text that every
/// domain gets replaced is replaced before it waits.
fn union(row: &[Rule; 4]) -> Rule {
    let passes = |rule: &Rule| {
        rule.opener.is_some() || matches!(rule.cell, Cell::Pass | Cell::Write | Cell::Document)
    };
    let is_constant = |rule: &&Rule| matches!(rule.cell, Cell::Constant(_));
    if row.iter().any(passes) {
        return Rule {
            cell: Cell::Pass,
            opener: None,
        };
    }
    row.iter().find(is_constant).cloned().unwrap_or(Rule::DENY)
}

/// A policy file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// File and line.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> (Editions, Policy) {
        let editions = Editions::load(None).unwrap();
        let policy = Policy::load(None, &editions, 35).unwrap();
        (editions, policy)
    }

    #[test]
    fn every_element_of_every_message_has_a_row() {
        let (editions, _) = policy();
        let rows = Rows::parse(TABLE).unwrap();
        let mut named = 0;
        for schema in editions.get("2017").unwrap().messages() {
            for element in &schema.elements {
                let key = ("2017".to_owned(), schema.name.clone(), element.path.clone());
                assert!(rows.rules.contains_key(&key), "{} has no row", element.path);
                named += 1;
            }
        }
        assert_eq!(
            named,
            rows.rules.len(),
            "a row names an element that no schema has"
        );
    }

    #[test]
    fn nothing_goes_to_an_insurer() {
        let (editions, policy) = policy();
        for schema in editions.get("2017").unwrap().messages() {
            let sheet = policy.sheet(schema, "2017", Domain::Verzekeraar).unwrap();
            assert!(!sheet.admits_message());
            for at in 0..schema.elements.len() {
                assert!(matches!(sheet.rule(at).cell, Cell::Never | Cell::Strip));
            }
        }
    }

    #[test]
    fn doubtful_elements_never_leave() {
        let (editions, policy) = policy();
        let mut doubtful = 0;
        for schema in editions.get("2017").unwrap().messages() {
            for (at, element) in schema
                .elements
                .iter()
                .enumerate()
                .filter(|(_, e)| e.doubtful)
            {
                doubtful += 1;
                for domain in Domain::ALL {
                    let rule = policy.sheet(schema, "2017", *domain).unwrap().rule(at);
                    assert!(
                        matches!(rule.cell, Cell::Strip | Cell::Never),
                        "{}",
                        element.path
                    );
                }
            }
        }
        assert!(doubtful > 40, "{doubtful}");
    }

    #[test]
    fn a_broken_table_names_its_line() {
        let broken = TABLE.replacen("\tP\t", "\tQ\t", 1);
        let error = Rows::parse(&broken).err().unwrap();
        assert!(error.to_string().starts_with("policy.tsv:"), "{error}");
        assert!(error.to_string().contains("unknown cell"), "{error}");
    }

    #[test]
    fn an_element_that_the_table_does_not_name_is_denied() {
        let sheet = Sheet { rules: Vec::new() };
        assert_eq!(sheet.rule(3).cell, Cell::Strip);
        assert!(!sheet.admits_message());
    }
}
