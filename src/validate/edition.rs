//! Editions: folders of schemas with a description.
//!
//! The built-in ones are in the binary. An operator's folder of the same name
//! replaces schemas of an edition, and may add an edition, without a rebuild.

use super::Term;
use super::schema::{Certainty, MessageSchema, SchemaError};
use super::xsd::{Compiled, compile};
use rust_embed::RustEmbed;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DESCRIPTION: &str = "edition.toml";
const ELEMENTS: &str = "elements.tsv";

#[derive(RustEmbed)]
#[folder = "schemas/"]
struct BuiltIn;

/// The content of `edition.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Tags whose code lists are not certain.
    #[serde(default)]
    lenient_codes: Vec<String>,
    /// Term → tags, or ends of paths.
    terms: BTreeMap<String, Vec<String>>,
    message: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    name: String,
    root: String,
    namespace: String,
    code: String,
    version: String,
    #[serde(default)]
    other_versions: Vec<String>,
}

/// One edition of the standard.
#[derive(Debug)]
pub struct Edition {
    name: String,
    messages: Vec<Arc<MessageSchema>>,
    terms: Vec<(String, Term)>,
}

impl Edition {
    /// Its name, which is the name of its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its messages, in the order of its description.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<MessageSchema>> {
        self.messages.iter()
    }

    /// The message with this `BrCd`.
    #[must_use]
    pub fn message_by_code(&self, code: &str) -> Option<&Arc<MessageSchema>> {
        self.messages.iter().find(|message| message.code == code)
    }

    /// The message with this name.
    #[must_use]
    pub fn message(&self, name: &str) -> Option<&Arc<MessageSchema>> {
        self.messages.iter().find(|message| message.name == name)
    }

    /// Whether a tag has a meaning at some place.
    pub(super) fn has_term(&self, tag: &str, term: Term) -> bool {
        self.terms
            .iter()
            .any(|(end, known)| *known == term && end.rsplit('/').next() == Some(tag))
    }
}

/// The editions at hand.
#[derive(Debug)]
pub struct Editions {
    editions: BTreeMap<String, Arc<Edition>>,
}

impl Editions {
    /// Reads the built-in editions and those in the folders under `extra`.
    ///
    /// A file of an operator's folder replaces the schema of the message that
    /// has its target namespace, its root, or its `BrCd`; the name of the
    /// file is free. `edition.toml` and `elements.tsv` may be left out where
    /// the edition is a built-in one.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] for the first file that cannot be used, with the line
    /// and the construct.
    pub fn load(extra: Option<&Path>) -> Result<Self, SchemaError> {
        let mut folders = built_in();
        if let Some(extra) = extra {
            for (name, folder) in operators(extra)? {
                folders.entry(name).or_default().replace(folder);
            }
        }
        let mut editions = BTreeMap::new();
        for (name, folder) in folders {
            let edition = folder.edition(&name)?;
            editions.insert(name, Arc::new(edition));
        }
        Ok(Self { editions })
    }

    /// The edition of this name.
    #[must_use]
    pub fn get(&self, edition: &str) -> Option<&Arc<Edition>> {
        self.editions.get(edition)
    }

    /// The names of the editions, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.editions.keys().map(String::as_str)
    }
}

/// A file of an edition.
struct File {
    path: PathBuf,
    content: Vec<u8>,
}

/// The files of an edition before they are read.
#[derive(Default)]
struct Folder {
    description: Option<File>,
    elements: Option<File>,
    /// Built-in schemas.
    schemas: Vec<File>,
    /// The operator's schemas, which go before them.
    own: Vec<File>,
}

impl Folder {
    fn replace(&mut self, other: Self) {
        self.description = other.description.or(self.description.take());
        self.elements = other.elements.or(self.elements.take());
        self.own = other.schemas;
    }

    fn add(&mut self, file: File) {
        let name = file
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name == DESCRIPTION {
            self.description = Some(file);
        } else if name == ELEMENTS {
            self.elements = Some(file);
        } else if Path::new(name)
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("xsd"))
        {
            self.schemas.push(file);
        }
    }

    fn edition(&self, name: &str) -> Result<Edition, SchemaError> {
        let Some(file) = &self.description else {
            let path = Path::new(name).join(DESCRIPTION);
            return Err(SchemaError::new(
                path,
                0,
                "the edition is not built in, so it needs this file",
            ));
        };
        let description = describe(file)?;
        let terms = terms(file, &description)?;
        let certainty = match &self.elements {
            Some(file) => elements(file)?,
            None => HashMap::new(),
        };
        let mut found: HashMap<usize, (Compiled, &File)> = HashMap::new();
        for file in self.schemas.iter().chain(&self.own) {
            let roots: Vec<_> = description
                .message
                .iter()
                .map(|message| message.root.as_str())
                .collect();
            let (at, schema) = matched(file, &description, &roots)?;
            found.insert(at, (schema, file));
        }
        let mut messages = Vec::new();
        for (at, message) in description.message.iter().enumerate() {
            let (schema, _) = found.remove(&at).ok_or_else(|| {
                SchemaError::new(
                    &file.path,
                    0,
                    format!("no schema for the message {}", message.name),
                )
            })?;
            messages.push(Arc::new(assemble(
                message,
                schema,
                &terms,
                &certainty,
                &description.lenient_codes,
            )));
        }
        Ok(Edition {
            name: name.to_owned(),
            messages,
            terms,
        })
    }
}

fn built_in() -> BTreeMap<String, Folder> {
    let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
    for path in BuiltIn::iter() {
        let Some((edition, _)) = path.split_once('/') else {
            continue;
        };
        let Some(file) = BuiltIn::get(&path) else {
            continue;
        };
        folders.entry(edition.to_owned()).or_default().add(File {
            path: PathBuf::from(path.as_ref()),
            content: file.data.into_owned(),
        });
    }
    folders
}

fn operators(extra: &Path) -> Result<BTreeMap<String, Folder>, SchemaError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |cause: std::io::Error| SchemaError::new(path, 0, format!("cannot be read: {cause}"))
    };
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(extra).map_err(unreadable(extra))? {
        let path = entry.map_err(unreadable(extra))?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
        else {
            continue;
        };
        if !path.is_dir() {
            continue;
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(&path).map_err(unreadable(&path))? {
            paths.push(entry.map_err(unreadable(&path))?.path());
        }
        // The order of a directory is not stable.
        paths.sort();
        let mut folder = Folder::default();
        for path in paths.into_iter().filter(|path| path.is_file()) {
            let content = fs::read(&path).map_err(unreadable(&path))?;
            folder.add(File { path, content });
        }
        folders.insert(name, folder);
    }
    Ok(folders)
}

fn describe(file: &File) -> Result<Description, SchemaError> {
    let text = std::str::from_utf8(&file.content)
        .map_err(|_| SchemaError::new(&file.path, 0, "is not UTF-8"))?;
    toml::from_str(text).map_err(|cause| SchemaError::new(&file.path, 0, cause.to_string()))
}

/// Ends of paths with their terms.
fn terms(file: &File, description: &Description) -> Result<Vec<(String, Term)>, SchemaError> {
    let mut found = Vec::new();
    for (name, ends) in &description.terms {
        let term = Term::named(name)
            .ok_or_else(|| SchemaError::new(&file.path, 0, format!("{name} is not a term")))?;
        found.extend(ends.iter().map(|end| (end.clone(), term)));
    }
    // The longest end is the most particular one.
    found.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
    Ok(found)
}

/// Message and path below the root → how certain, and whether doubtful.
type Certainties = HashMap<(String, String), (Certainty, bool)>;

fn elements(file: &File) -> Result<Certainties, SchemaError> {
    let text = std::str::from_utf8(&file.content)
        .map_err(|_| SchemaError::new(&file.path, 0, "is not UTF-8"))?;
    let mut found = HashMap::new();
    for (line, row) in (1_u64..).zip(text.lines()).skip(1) {
        let columns: Vec<_> = row.split('\t').collect();
        let [message, path, certainty, doubtful] = columns.as_slice() else {
            return Err(SchemaError::new(&file.path, line, "has not four columns"));
        };
        let certainty = Certainty::named(certainty)
            .ok_or_else(|| SchemaError::new(&file.path, line, "names an unknown certainty"))?;
        let key = ((*message).to_owned(), below_root(path).to_owned());
        found.insert(key, (certainty, *doubtful == "yes"));
    }
    Ok(found)
}

fn below_root(path: &str) -> &str {
    path.split_once('/').map_or("", |(_, rest)| rest)
}

/// Reads a schema and finds the message that it is of.
fn matched(
    file: &File,
    description: &Description,
    roots: &[&str],
) -> Result<(usize, Compiled), SchemaError> {
    let mut schema = compile(&file.path, &file.content, None);
    for root in roots {
        // Several global elements: one of them may be a root by its name.
        schema = schema.or_else(
            |error| match compile(&file.path, &file.content, Some(root)) {
                Ok(schema)
                    if schema
                        .elements
                        .first()
                        .is_some_and(|element| element.tag == *root) =>
                {
                    Ok(schema)
                }
                _ => Err(error),
            },
        );
    }
    let schema = schema?;
    let root = schema.elements.first().map(|element| element.tag.clone());
    let code = only_code(&schema, "BrCd");
    let of = |test: &dyn Fn(&Message) -> bool| description.message.iter().position(test);
    let at = of(&|message| !schema.namespace.is_empty() && message.namespace == schema.namespace)
        .or_else(|| of(&|message| Some(&message.root) == root.as_ref()))
        .or_else(|| of(&|message| Some(&message.code) == code.as_ref()));
    match at {
        Some(at) => Ok((at, schema)),
        None => Err(SchemaError::new(
            &file.path,
            0,
            "is of no message that edition.toml names",
        )),
    }
}

/// The code that a schema prescribes for a tag of the header.
fn only_code(schema: &Compiled, tag: &str) -> Option<String> {
    let element = schema.elements.iter().find(|element| element.tag == tag)?;
    element.leaf.as_ref()?.codes.first().cloned()
}

/// The table of a message: what the file says, and what the edition adds.
fn assemble(
    message: &Message,
    schema: Compiled,
    terms: &[(String, Term)],
    certainty: &Certainties,
    lenient: &[String],
) -> MessageSchema {
    let prescribed = |term: Term| {
        let ends: Vec<_> = terms.iter().filter(|(_, known)| *known == term).collect();
        let tag = ends.first().and_then(|(end, _)| end.rsplit('/').next());
        tag.and_then(|tag| only_code(&schema, tag))
    };
    let code = prescribed(Term::MessageCode).unwrap_or_else(|| message.code.clone());
    let version = prescribed(Term::MessageVersion).unwrap_or_else(|| message.version.clone());
    let mut elements = schema.elements;
    for element in &mut elements {
        element.term = terms
            .iter()
            .find(|(end, _)| ends_with(&element.path, end))
            .map(|(_, term)| *term);
        element.lenient = lenient.contains(&element.tag);
        let key = (message.name.clone(), below_root(&element.path).to_owned());
        if let Some((certain, doubtful)) = certainty.get(&key) {
            element.certainty = *certain;
            element.doubtful = *doubtful;
        }
    }
    MessageSchema {
        name: message.name.clone(),
        root: elements
            .first()
            .map(|root| root.tag.clone())
            .unwrap_or_default(),
        namespace: schema.namespace,
        code,
        version,
        other_versions: message.other_versions.clone(),
        elements,
        types: schema.types,
    }
}

/// Whether a path ends with whole tags.
fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end)
        .is_some_and(|before| before.is_empty() || before.ends_with('/'))
}
