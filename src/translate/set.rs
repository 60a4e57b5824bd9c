//! All mappings of an installation.

use std::collections::BTreeMap;
use std::path::Path;

use rust_embed::RustEmbed;

use super::Mapping;
use super::written::Written;
use crate::toml_file::{Fault, TomlFile};

#[derive(RustEmbed)]
#[folder = "mappings"]
struct Shipped;

/// The mapping that all others extend.
const DEFAULT: &str = "default";

/// All mappings by name: those that are built in, and those of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mappings(BTreeMap<String, Mapping>);

impl Mappings {
    /// Reads the built-in mappings and, where given, `*.toml` of the folder
    /// `extra`: a file there replaces the built-in one of the same name, or
    /// adds one.
    ///
    /// # Errors
    ///
    /// A [`Fault`] with file, line and key of the first mistake.
    pub fn load(extra: Option<&Path>) -> Result<Self, Fault> {
        let mut files = shipped()?;
        if let Some(folder) = extra {
            files.append(&mut of_folder(folder)?);
        }
        let mut reader = Reader {
            files: &files,
            done: BTreeMap::new(),
        };
        for name in files.keys() {
            reader.mapping(name, &mut Vec::new())?;
        }
        Ok(Self(reader.done))
    }

    /// The mapping with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Mapping> {
        self.0.get(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn shipped() -> Result<BTreeMap<String, TomlFile>, Fault> {
    let mut files = BTreeMap::new();
    for path in Shipped::iter().filter(|path| path.ends_with(".toml")) {
        let name = format!("mappings/{path}");
        let bytes = Shipped::get(&path).map(|file| file.data.into_owned());
        let text = String::from_utf8(bytes.unwrap_or_default())
            .map_err(|_| Fault::of_file(&name, "is not UTF-8"))?;
        let key = path.trim_end_matches(".toml").to_owned();
        files.insert(key, TomlFile::parse(&name, text)?);
    }
    Ok(files)
}

fn of_folder(folder: &Path) -> Result<BTreeMap<String, TomlFile>, Fault> {
    let unreadable = |cause: std::io::Error| {
        let name = folder.display().to_string();
        Fault::of_file(&name, format!("cannot be read: {cause}"))
    };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_toml = path.extension().is_some_and(|end| end == "toml");
        if let Some(name) = path.file_stem().filter(|_| is_toml) {
            let name = name.to_string_lossy().into_owned();
            files.insert(name, TomlFile::open(&path)?);
        }
    }
    Ok(files)
}

struct Reader<'a> {
    files: &'a BTreeMap<String, TomlFile>,
    done: BTreeMap<String, Mapping>,
}

impl Reader<'_> {
    /// Reads a mapping after the one that it extends; `above` are those that
    /// wait for it.
    fn mapping(&mut self, name: &str, above: &mut Vec<String>) -> Result<Mapping, Fault> {
        if let Some(mapping) = self.done.get(name) {
            return Ok(mapping.clone());
        }
        let Some(file) = self.files.get(name) else {
            // Only a name in `extends` can be unknown: names are taken from the files.
            let by = above.last().and_then(|name| self.files.get(name));
            let problem = "there is no mapping with this name";
            return Err(by.map_or_else(
                || Fault::of_file(name, problem),
                |file| file.fault("extends", problem),
            ));
        };
        if above.iter().any(|waiting| waiting == name) {
            return Err(file.fault("extends", "mappings extend each other in a circle"));
        }
        let written: Written = file.read()?;
        let below = match &written.extends {
            Some(below) => Some(below.clone()),
            None => (name != DEFAULT).then(|| DEFAULT.to_owned()),
        };
        let mut mapping = match below {
            None => Mapping::default(),
            Some(below) => {
                above.push(name.to_owned());
                let mapping = self.mapping(&below, above)?;
                above.pop();
                mapping
            }
        };
        written.apply(file, &mut mapping)?;
        self.done.insert(name.to_owned(), mapping.clone());
        Ok(mapping)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{Code, Severity};
    use crate::translate::{Action, CodeOutcome};

    fn load(files: &[(&str, &str)]) -> Result<Mappings, Fault> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Mappings::load(Some(folder.path()))
    }

    #[test]
    fn the_shipped_mappings_load() {
        let mappings = Mappings::load(None).unwrap();
        let names: Vec<&str> = mappings.names().collect();
        assert_eq!(
            names,
            ["adp", "default", "nmbrs", "sap-hcm", "successfactors"]
        );
        for name in names {
            let mapping = mappings.get(name).unwrap();
            assert!(mapping.accepts_edition("2017"), "{name}");
            assert!(mapping.accepts_root("Message"), "{name}");
            assert!(mapping.accepts_missing_namespace(), "{name}");
            // Nobody confirmed the pairing with these vendors.
            assert!(!mapping.pairing().is_confirmed(), "{name}");
        }
    }

    #[test]
    fn the_default_file_says_what_holds_anyway() {
        let mappings = Mappings::load(None).unwrap();
        assert_eq!(mappings.get("default"), Some(&Mapping::default()));
    }

    /// Names in the schemas of the edition, once they stand in this tree.
    fn tags_of_the_standard() -> Option<BTreeSet<String>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/2017");
        let mut tags = BTreeSet::new();
        for entry in std::fs::read_dir(folder).ok()? {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let names = text.split("name=\"").skip(1);
            tags.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
        Some(tags)
    }

    #[test]
    fn shipped_mappings_name_only_tags_of_the_standard() {
        let Some(known) = tags_of_the_standard() else {
            return;
        };
        let mappings = Mappings::load(None).unwrap();
        for name in mappings.names() {
            for tag in mappings.get(name).unwrap().tags() {
                assert!(known.contains(tag), "{name} names {tag}");
            }
        }
    }

    #[test]
    fn a_file_replaces_and_extends() {
        let mappings = load(&[
            (
                "default.toml",
                "root_aliases = []\n[severity]\ndate_future = \"off\"\n",
            ),
            (
                "acme.toml",
                "extends = \"adp\"\n[ids.IdWrknmr]\nleading_zeros = \"pad:8\"\n\
                 [codes.OorzkVrzmCd]\n\"7\" = \"99\"\ndefault = \"reject\"\n\
                 [actions]\nreport = \"02\"\nchange = \"01\"\ncorrect = \"03\"\ndelete = \"04\"\n\
                 synchronise = \"05\"\n",
            ),
        ])
        .unwrap();
        let acme = mappings.get("acme").unwrap();
        assert!(!acme.accepts_root("Message"));
        assert_eq!(acme.severity(Code::DateFuture), None);
        assert_eq!(acme.severity(Code::DateOrder), Some(Severity::Warning));
        assert_eq!(acme.normalise_id("IdWrknmr", " 12"), "00000012");
        assert_eq!(acme.code("OorzkVrzmCd", "7"), CodeOutcome::Replace("99"));
        assert_eq!(acme.code("OorzkVrzmCd", "8"), CodeOutcome::Reject);
        assert_eq!(acme.action("02"), Some(Action::Report));
        assert!(acme.pairing().is_confirmed());
    }

    #[test]
    fn a_mistake_is_named_with_file_line_and_key() {
        for (text, expected) in [
            ("colour = 1", ":1: colour: unknown field `colour`"),
            (
                "extends = \"nobody\"",
                ":1: extends: there is no mapping with this name",
            ),
            (
                "extends = \"a\"",
                ":1: extends: mappings extend each other in a circle",
            ),
            ("editions = []", ":1: editions: names no edition"),
            (
                "free_text = \"keep\"",
                ":1: free_text: must be drop or policy",
            ),
            (
                "sentinel_dates = [\"never\"]",
                ":1: sentinel_dates[1]: must be a date",
            ),
            (
                "[versions]\nX = [\"00001\"]",
                ":2: versions.X: no such message",
            ),
            (
                "[versions]\nAfspraken = [\"2\"]",
                ":2: versions.Afspraken: must be versions of five digits",
            ),
            (
                "[employer_key]\nall = []",
                ":1: employer_key: needs either all or first",
            ),
            (
                "[ids.IdWrknmr]\n\ncase = \"small\"",
                ":3: ids.IdWrknmr.case: must be lower, upper or keep",
            ),
            (
                "[ids.IdWrknmr]\nprefix_add = \"a\"\nsuffix_remove = \"b\"",
                ":1: ids.IdWrknmr: a rule either removes or adds",
            ),
            (
                "[ids.IdWrknmr]\nleading_zeros = \"pad:99\"",
                ":2: ids.IdWrknmr.leading_zeros: must be keep, strip or pad:1 to pad:40",
            ),
            (
                "[severity]\nno_such = \"off\"",
                ":2: severity.no_such: no such finding",
            ),
            (
                "[severity]\ndate_order = \"loud\"",
                ":2: severity.date_order: must be error",
            ),
            ("[actions]\nreport = \"01\"", ":1: actions: missing field"),
            (
                "[receipt]\nsend = \"maybe\"",
                ":2: receipt.send: must be honour, always or never",
            ),
            (
                "[receipt]\npositive = \"03\"",
                ":1: receipt: positive and negative must differ",
            ),
        ] {
            let shown = load(&[("a.toml", text)]).unwrap_err().to_string();
            assert!(shown.contains(&format!("a.toml{expected}")), "{shown}");
        }
    }

    #[test]
    fn what_protects_privacy_cannot_be_set() {
        for code in [
            "bsn_as_key",
            "no_agreement",
            "receiver_mismatch",
            "employer_unknown",
            "no_route",
            "employer_foreign",
            "sender_mismatch",
            "element_unknown",
        ] {
            let text = format!("[severity]\n{code} = \"warning\"\n");
            let shown = load(&[("a.toml", &text)]).unwrap_err().to_string();
            assert!(
                shown.contains("the severity of this finding is fixed"),
                "{shown}"
            );
        }
        assert!(load(&[("a.toml", "[severity]\nbsn_suspect = \"error\"\n")]).is_err());
        assert!(load(&[("a.toml", "[severity]\nbsn_suspect = \"off\"\n")]).is_ok());
    }
}
