//! An XSD as a tree of nodes with their lines, annotations left out.

use super::schema::SchemaError;
use crate::parse::{Event, Instructions, ParseError, Reader, Start, places};
use std::path::Path;

/// The namespace of XML Schema.
const XSD: &str = "http://www.w3.org/2001/XMLSchema";
/// Attributes whose value is the name of a type or an element.
const NAMES: [&str; 3] = ["type", "base", "ref"];

/// One element of a schema file.
#[derive(Debug)]
pub struct Node {
    /// Tag without prefix.
    pub tag: String,
    /// Line in the file, counted from 1.
    pub line: u64,
    /// What it holds.
    pub children: Vec<Node>,
    attributes: Vec<(String, String)>,
}

impl Node {
    /// The value of an attribute. Names of types and elements are written
    /// `{xsd}name`, `{tns}name` or, in any other namespace, `{?}name`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Refuses every attribute that is not named.
    pub fn only(&self, file: &Path, names: &[&str]) -> Result<(), SchemaError> {
        match self
            .attributes
            .iter()
            .find(|(name, _)| !names.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => {
                let reason = format!("attribute {name} of xsd:{} is not supported", self.tag);
                Err(SchemaError::new(file, self.line, reason))
            }
        }
    }

    /// Refuses an attribute with any other value than this one.
    pub fn fixed(&self, file: &Path, name: &str, value: &str) -> Result<(), SchemaError> {
        match self.attribute(name) {
            Some(other) if other != value => {
                let reason = format!("{name}=\"{other}\" of xsd:{} is not supported", self.tag);
                Err(SchemaError::new(file, self.line, reason))
            }
            _ => Ok(()),
        }
    }

    /// Visits the lines in the order of [`Self::each`].
    fn each_line(&mut self, visit: &mut impl FnMut(&mut u64)) {
        visit(&mut self.line);
        for child in &mut self.children {
            child.each_line(visit);
        }
    }

    /// Visits this node and everything below it.
    pub fn each(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        for child in &self.children {
            child.each(visit);
        }
    }
}

/// Reads a schema file.
///
/// # Errors
///
/// Not XML, not a schema, or a construct that the file format itself does
/// not allow.
pub fn read(file: &Path, text: &[u8]) -> Result<Node, SchemaError> {
    let line = |offset: u64| {
        let found = places(text, &[offset]).unwrap_or_default();
        found.first().map_or(0, |place| place.line)
    };
    let explain = |error: ParseError| match error {
        ParseError::Refused(refusal) => SchemaError::new(
            file,
            line(refusal.offset),
            format!("not a usable XML file: {}", refusal.code),
        ),
        ParseError::Io(cause) => SchemaError::new(file, 0, cause.to_string()),
    };
    let mut reader = Reader::new(text, text, Instructions::PassOver).map_err(explain)?;
    let mut tree = Tree {
        file,
        open: Vec::new(),
        root: None,
        skipped: 0,
        target: None,
    };
    loop {
        // The offset is only known once the event is read, and the namespaces
        // only while it is at hand: the names are resolved after it is gone.
        let (_, event) = reader.next_event().map_err(explain)?;
        let found = match event {
            Event::Start(start) => Found::Start(raw(&start)),
            Event::End => Found::End,
            Event::Text(text) | Event::Cdata(text) => Found::Text(text.trim().is_empty()),
            Event::Nothing => continue,
            Event::Eof => break,
        };
        tree.take(found, &reader, &line)?;
    }
    let mut root = tree
        .root
        .ok_or_else(|| SchemaError::new(file, 0, "no xsd:schema"))?;
    set_lines(&mut root, text);
    check_schema(file, &root)?;
    Ok(root)
}

/// Turns the offsets that reading left in `line` into lines, in one pass.
fn set_lines(root: &mut Node, text: &[u8]) {
    let mut offsets = Vec::new();
    root.each(&mut |node| offsets.push(node.line));
    let mut found = places(text, &offsets).unwrap_or_default().into_iter();
    root.each_line(&mut |line| *line = found.next().map_or(0, |place| place.line));
}

fn check_schema(file: &Path, root: &Node) -> Result<(), SchemaError> {
    if root.tag != "schema" {
        return Err(SchemaError::new(
            file,
            root.line,
            "the root is not xsd:schema",
        ));
    }
    root.only(
        file,
        &[
            "targetNamespace",
            "elementFormDefault",
            "attributeFormDefault",
            "version",
            "id",
            "lang",
        ],
    )?;
    if root.attribute("targetNamespace").is_some()
        && root.attribute("elementFormDefault") != Some("qualified")
    {
        return Err(SchemaError::new(
            file,
            root.line,
            "elementFormDefault must be qualified",
        ));
    }
    Ok(())
}

/// A start tag before its names are resolved.
struct RawStart {
    tag: String,
    namespace: Option<crate::parse::NamespaceId>,
    attributes: Vec<crate::parse::Attribute>,
}

enum Found {
    Start(RawStart),
    End,
    Text(bool),
}

fn raw(start: &Start<'_>) -> RawStart {
    RawStart {
        tag: start.local().to_owned(),
        namespace: start.namespace,
        attributes: start.attributes.to_vec(),
    }
}

struct Tree<'a> {
    file: &'a Path,
    open: Vec<Node>,
    root: Option<Node>,
    /// Levels below an `xsd:annotation`.
    skipped: usize,
    target: Option<String>,
}

impl Tree<'_> {
    fn take(
        &mut self,
        found: Found,
        reader: &Reader<&[u8]>,
        line: &impl Fn(u64) -> u64,
    ) -> Result<(), SchemaError> {
        match found {
            Found::Start(_) if self.skipped > 0 => self.skipped += 1,
            Found::Start(start) => self.start(start, reader, line)?,
            Found::End if self.skipped > 0 => self.skipped -= 1,
            Found::End => {
                let node = self.open.pop();
                match self.open.last_mut() {
                    Some(parent) => parent.children.extend(node),
                    None => self.root = node,
                }
            }
            Found::Text(blank) => {
                if !blank && self.skipped == 0 {
                    return Err(SchemaError::new(
                        self.file,
                        line(reader.offset()),
                        "text in a schema",
                    ));
                }
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        start: RawStart,
        reader: &Reader<&[u8]>,
        line: &impl Fn(u64) -> u64,
    ) -> Result<(), SchemaError> {
        let offset = reader.offset();
        if start.namespace.and_then(|id| reader.uri(id)) != Some(XSD) {
            return Err(SchemaError::new(
                self.file,
                line(offset),
                "an element that is not of XML Schema",
            ));
        }
        if start.tag == "annotation" {
            self.skipped = 1;
            return Ok(());
        }
        if self.open.is_empty() {
            let target = start
                .attributes
                .iter()
                .find(|a| a.local == "targetNamespace");
            self.target = target.map(|attribute| attribute.value.clone());
        }
        let attributes = start.attributes.into_iter().map(|attribute| {
            let value = if NAMES.contains(&attribute.local.as_str()) {
                self.expand(&attribute.value, reader)
            } else {
                attribute.value
            };
            (attribute.local, value)
        });
        let attributes = attributes.collect();
        self.open.push(Node {
            tag: start.tag,
            line: offset,
            children: Vec::new(),
            attributes,
        });
        Ok(())
    }

    fn expand(&self, name: &str, reader: &Reader<&[u8]>) -> String {
        let name = name.trim();
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let uri = reader
            .namespace(prefix)
            .map(|id| reader.uri(id).unwrap_or(""));
        let space = match uri {
            Some(XSD) => "xsd",
            Some(uri) if uri == self.target.as_deref().unwrap_or("") => "tns",
            _ => "?",
        };
        format!("{{{space}}}{local}")
    }
}
