//! A TOML file whose errors name the file, the line and the key.
//!
//! Every file that an operator writes is read here. A [`Fault`] never repeats
//! a value: the value may be a secret. This module does not know what the
//! keys mean.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

/// Something wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named by who asked for it.
    pub file: String,
    /// The line, counted from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// The key with the tables around it, entries of lists counted from 1:
    /// `tenant[2].route[1].bsn`. Empty when no key is meant.
    pub key: String,
    /// What is wrong, without the value.
    pub problem: String,
}

impl Fault {
    /// A fault of the file as a whole, such as one that cannot be read.
    #[must_use]
    pub fn of_file(file: &str, problem: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.problem)
    }
}

impl std::error::Error for Fault {}

/// A file that is TOML, with the place of each of its keys.
#[derive(Debug)]
pub struct TomlFile {
    name: String,
    text: String,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    key: String,
    name: Range<usize>,
    value: Range<usize>,
}

impl TomlFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read, is not UTF-8 or is not TOML.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| Fault::of_file(&name, format!("cannot be read: {cause}")))?;
        Self::parse(&name, text)
    }

    /// Takes the text of a file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the text is not TOML.
    pub fn parse(name: &str, text: String) -> Result<Self, Fault> {
        let mut file = Self {
            name: name.to_owned(),
            text,
            places: Vec::new(),
        };
        let mut places = Vec::new();
        match DeTable::parse(&file.text) {
            Ok(table) => note_places("", table.get_ref(), &mut places),
            Err(error) => return Err(file.translate(&error)),
        }
        file.places = places;
        Ok(file)
    }

    /// The name that errors use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the file into a type.
    ///
    /// # Errors
    ///
    /// A [`Fault`] at the key that does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        self.read_with(&mut |_, _| Ok(None))
    }

    /// Reads the file into a type after `replace` had a look at each string:
    /// it gets the key and the text, and may give another text.
    ///
    /// # Errors
    ///
    /// A [`Fault`] at the key that does not fit, or for which `replace` gives
    /// a reason.
    pub fn read_with<T: DeserializeOwned>(&self, replace: &mut Replace<'_>) -> Result<T, Fault> {
        let mut table = DeTable::parse(&self.text).map_err(|error| self.translate(&error))?;
        replace_in_table("", table.get_mut(), replace)
            .map_err(|(key, problem)| self.fault(&key, problem))?;
        T::deserialize(Deserializer::from(table)).map_err(|error| self.translate(&error))
    }

    /// The first key, of a value or a table, that is written here and not in
    /// `later` and may not go. Entries of lists do not count.
    #[must_use]
    pub fn missing_in(&self, later: &Self, may_go: &[&str]) -> Option<&str> {
        let is_there = |key: &str| later.places.iter().any(|place| place.key == key);
        let mut keys = self.places.iter().map(|place| place.key.as_str());
        keys.find(|key| !key.contains('[') && !is_there(key) && !may_go.contains(key))
    }

    /// The key in whose value the file ends, without so much as the end of its
    /// line, unless the value is that of `earlier`.
    #[must_use]
    pub fn broken_off_since(&self, earlier: &Self) -> Option<&str> {
        let value =
            |file: &Self, place: &Place| file.text.get(place.value.clone()).map(str::to_owned);
        let ends = |place: &&Place| place.value.end == self.text.len() && !place.key.contains('[');
        let last = self
            .places
            .iter()
            .filter(ends)
            .max_by_key(|place| place.key.len())?;
        let before = earlier.places.iter().find(|place| place.key == last.key);
        let same = before.is_some_and(|place| value(earlier, place) == value(self, last));
        (!same).then_some(&last.key)
    }

    /// A fault at `key`, or at the closest table around it that is written.
    #[must_use]
    pub fn fault(&self, key: &str, problem: impl Into<String>) -> Fault {
        Fault {
            file: self.name.clone(),
            line: self.line_of(key),
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    /// The line of `key`, or of the closest table around it that is written.
    #[must_use]
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(place) = self.places.iter().find(|place| place.key == key) {
                return Some(self.line_at(place.name.start));
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    fn translate(&self, error: &Error) -> Fault {
        let span = error.span();
        Fault {
            file: self.name.clone(),
            line: span.as_ref().map(|span| self.line_at(span.start)),
            key: span
                .map(|span| self.key_at(span.start))
                .unwrap_or_default()
                .to_owned(),
            problem: without_values(error.message()),
        }
    }

    /// The innermost key whose name or value holds `offset`.
    fn key_at(&self, offset: usize) -> &str {
        let holds = |place: &&Place| place.name.contains(&offset) || place.value.contains(&offset);
        let found = self.places.iter().filter(holds);
        found.max_by_key(|p| p.key.len()).map_or("", |p| &p.key)
    }
}

fn note_places(prefix: &str, table: &DeTable<'_>, places: &mut Vec<Place>) {
    for (name, value) in table {
        let key = joined(prefix, name.get_ref());
        places.push(Place {
            key: key.clone(),
            name: name.span(),
            value: value.span(),
        });
        note_value(&key, value, places);
    }
}

fn note_value(key: &str, value: &Spanned<DeValue<'_>>, places: &mut Vec<Place>) {
    if let Some(table) = value.get_ref().as_table() {
        note_places(key, table, places);
    }
    for (index, entry) in value.get_ref().as_array().into_iter().flatten().enumerate() {
        let key = format!("{key}[{}]", index + 1);
        places.push(Place {
            key: key.clone(),
            name: entry.span(),
            value: entry.span(),
        });
        note_value(&key, entry, places);
    }
}

/// Gives another text for the text of a key, or a reason why there is none.
pub type Replace<'a> = dyn FnMut(&str, &str) -> Result<Option<String>, String> + 'a;

fn replace_in_table(
    prefix: &str,
    table: &mut DeTable<'_>,
    replace: &mut Replace<'_>,
) -> Result<(), (String, String)> {
    for (name, value) in table.iter_mut() {
        replace_in_value(joined(prefix, name.get_ref()), value.get_mut(), replace)?;
    }
    Ok(())
}

fn replace_in_value(
    key: String,
    value: &mut DeValue<'_>,
    replace: &mut Replace<'_>,
) -> Result<(), (String, String)> {
    match value {
        DeValue::String(text) => match replace(&key, text) {
            Ok(None) => {}
            Ok(Some(other)) => *text = Cow::Owned(other),
            Err(problem) => return Err((key, problem)),
        },
        DeValue::Array(entries) => {
            for (index, entry) in entries.iter_mut().enumerate() {
                replace_in_value(format!("{key}[{}]", index + 1), entry.get_mut(), replace)?;
            }
        }
        DeValue::Table(table) => replace_in_table(&key, table, replace)?,
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
    Ok(())
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

/// The message of the TOML reader without the text that it found, which may
/// be a secret in the wrong place.
fn without_values(message: &str) -> String {
    let (message, end) = match message.rsplit_once(", expected") {
        Some((before, after)) => (before, format!(", expected{after}")),
        None => (message, String::new()),
    };
    let start = if let Some(at) = message.find("string \"") {
        format!("{}text", &message[..at])
    } else if message.starts_with("unknown variant `") {
        "unknown word".to_owned()
    } else {
        message.to_owned()
    };
    format!("{start}{end}").replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        party: Vec<Entry>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        id: String,
        #[serde(default, rename = "port")]
        _port: u16,
        #[serde(default, rename = "keys")]
        _keys: Vec<BTreeMap<String, String>>,
    }

    fn fault(text: &str) -> String {
        TomlFile::parse("parties.toml", text.to_owned())
            .and_then(|file| file.read::<Sample>())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        assert_eq!(
            fault("[[party]]\nid = \"a\"\n\n[[party]]\nid = \"b\"\ncolour = 1\n"),
            "parties.toml:6: party[2].colour: unknown field `colour`, expected one of `id`, `port`, `keys`"
        );
        assert_eq!(
            fault("[[party]]\nport = 1\n"),
            "parties.toml:1: party[1]: missing field `id`"
        );
        assert_eq!(
            fault("[[party]]\nid = \"a\"\nkeys = [{ A = \"1\" }, { B = 2 }]\n"),
            "parties.toml:3: party[1].keys[2].B: invalid type: integer `2`, expected a string"
        );
        assert!(fault("[[party]]\nid = \n").starts_with("parties.toml:2:"));
    }

    #[test]
    fn an_error_never_repeats_a_text() {
        for text in [
            "[[party]]\nid = \"a\"\nport = \"hush, expected \\\" x\"\n",
            "[[party]]\nid = \"a\"\nkeys = \"hush\"\n",
        ] {
            let shown = fault(text);
            assert!(shown.contains("text, expected"), "{shown}");
            assert!(!shown.contains("hush"), "{shown}");
        }
    }

    #[test]
    fn a_missing_key_is_placed_at_its_table() {
        let text = "[[party]]\nid = \"a\"\n".to_owned();
        let file = TomlFile::parse("x.toml", text).unwrap();
        assert_eq!(file.line_of("party[1].id"), Some(2));
        assert_eq!(file.line_of("party[1].route[3].to"), Some(1));
        assert_eq!(file.line_of("tenant"), None);
    }

    #[test]
    fn a_replaced_text_is_read_instead() {
        let file = TomlFile::parse("x.toml", "[[party]]\nid = \"env:A\"\n".to_owned()).unwrap();
        let mut seen = Vec::new();
        let read: Sample = file
            .read_with(&mut |key, text| {
                seen.push(format!("{key}={text}"));
                Ok(Some("b".to_owned()))
            })
            .unwrap();
        assert_eq!(seen, ["party[1].id=env:A"]);
        assert_eq!(read.party[0].id, "b");
    }
}
