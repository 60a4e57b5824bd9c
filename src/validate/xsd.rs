//! Reads an XSD into a table.
//!
//! Supports what SIVI's schemas are made of and nothing more. Any other
//! construct is an error that names file, line and construct: a schema is
//! understood completely or not used at all.
//!
//! Source: XML Schema 1.0 part 1, sections 3.3, 3.4, 3.8, 3.14, 3.15.

use super::schema::{Certainty, Element, SchemaError};
use super::simple::{Named, simple_type};
use super::types::{Builtin, SimpleType};
use super::xsd_tree::{Node, read};
use std::collections::HashMap;
use std::path::Path;

/// Most elements of a schema once references are followed.
const MAX_ELEMENTS: usize = 20_000;

/// A schema as its file says it, before an edition adds meaning.
#[derive(Debug)]
pub struct Compiled {
    /// Target namespace; empty for none.
    pub namespace: String,
    /// The root first, in document order.
    pub elements: Vec<Element>,
    /// Named simple types, as `{tns}Name` and `{xsd}name`.
    pub types: HashMap<String, SimpleType>,
}

/// Reads the schema in `text`; `file` is for messages, `root` names the root
/// where the file has several global elements.
///
/// # Errors
///
/// The first construct that is not supported.
pub fn compile(file: &Path, text: &[u8], root: Option<&str>) -> Result<Compiled, SchemaError> {
    let tree = read(file, text)?;
    let mut builder = Builder {
        file,
        globals: HashMap::new(),
        complex: HashMap::new(),
        named: Named::new(),
        elements: Vec::new(),
    };
    builder.collect(&tree)?;
    let root = builder.root(&tree, root)?;
    builder.element(root, "", true, &mut Vec::new())?;
    builder.deterministic(tree.line)?;
    Ok(Compiled {
        namespace: tree.attribute("targetNamespace").unwrap_or("").to_owned(),
        elements: builder.elements,
        types: builder.named.into_types(),
    })
}

struct Builder<'a> {
    file: &'a Path,
    globals: HashMap<String, &'a Node>,
    complex: HashMap<String, &'a Node>,
    named: Named<'a>,
    elements: Vec<Element>,
}

impl<'a> Builder<'a> {
    fn error(&self, node: &Node, reason: impl Into<String>) -> SchemaError {
        SchemaError::new(self.file, node.line, reason)
    }

    /// The declarations that others may refer to.
    fn collect(&mut self, schema: &'a Node) -> Result<(), SchemaError> {
        for node in &schema.children {
            let name = node
                .attribute("name")
                .ok_or_else(|| self.error(node, format!("xsd:{} without a name", node.tag)))?;
            let name = format!("{{tns}}{name}");
            let twice = match node.tag.as_str() {
                "element" => self.globals.insert(name, node).is_some(),
                "complexType" => self.complex.insert(name, node).is_some(),
                "simpleType" => self.named.declare(name, node),
                tag => {
                    return Err(
                        self.error(node, format!("xsd:{tag} in xsd:schema is not supported"))
                    );
                }
            };
            if twice {
                return Err(self.error(node, "a name is declared twice"));
            }
        }
        self.named.resolve(self.file)
    }

    /// The root: the one asked for, else the only global element that no
    /// other refers to.
    fn root(&self, schema: &'a Node, wanted: Option<&str>) -> Result<&'a Node, SchemaError> {
        if let Some(node) = wanted.and_then(|tag| self.globals.get(&format!("{{tns}}{tag}"))) {
            return Ok(node);
        }
        let mut referred = Vec::new();
        schema.each(&mut |node| referred.extend(node.attribute("ref").map(str::to_owned)));
        let free: Vec<_> = self
            .globals
            .iter()
            .filter(|(name, _)| !referred.contains(name))
            .collect();
        match free.as_slice() {
            [(_, node)] => Ok(node),
            [] => Err(self.error(schema, "no global xsd:element can be the root")),
            _ => Err(self.error(schema, "several global xsd:element can be the root")),
        }
    }

    /// Adds an element and everything below it; `open` are the named types
    /// and references that it is within.
    fn element(
        &mut self,
        node: &'a Node,
        parent: &str,
        global: bool,
        open: &mut Vec<&'a str>,
    ) -> Result<usize, SchemaError> {
        if self.elements.len() >= MAX_ELEMENTS {
            return Err(self.error(node, format!("more than {MAX_ELEMENTS} elements")));
        }
        node.only(
            self.file,
            &[
                "name",
                "ref",
                "type",
                "minOccurs",
                "maxOccurs",
                "nillable",
                "form",
                "abstract",
                "id",
            ],
        )?;
        node.fixed(self.file, "nillable", "false")?;
        node.fixed(self.file, "abstract", "false")?;
        node.fixed(self.file, "form", "qualified")?;
        let (min, max) = if global {
            (1, Some(1))
        } else {
            self.occurrence(node)?
        };
        if let Some(reference) = node.attribute("ref") {
            return self.reference(node, reference, (min, max), parent, open);
        }
        let tag = node
            .attribute("name")
            .ok_or_else(|| self.error(node, "xsd:element without name or ref"))?;
        let path = if parent.is_empty() {
            tag.to_owned()
        } else {
            format!("{parent}/{tag}")
        };
        let id = self.elements.len();
        self.elements.push(Element {
            tag: tag.to_owned(),
            path: path.clone(),
            min,
            max,
            children: Vec::new(),
            leaf: None,
            term: None,
            doubtful: false,
            certainty: Certainty::Unlisted,
            lenient: false,
            type_name: node.attribute("type").map(str::to_owned),
        });
        self.content(node, id, &path, open)?;
        Ok(id)
    }

    fn reference(
        &mut self,
        node: &'a Node,
        reference: &'a str,
        occurrence: (u32, Option<u32>),
        parent: &str,
        open: &mut Vec<&'a str>,
    ) -> Result<usize, SchemaError> {
        let target = *self
            .globals
            .get(reference)
            .ok_or_else(|| self.error(node, "ref names no global xsd:element of this file"))?;
        if open.contains(&reference) {
            return Err(self.error(node, "an xsd:element that holds itself is not supported"));
        }
        open.push(reference);
        let id = self.element(target, parent, true, open)?;
        open.pop();
        if let Some(element) = self.elements.get_mut(id) {
            (element.min, element.max) = occurrence;
        }
        Ok(id)
    }

    /// The type of an element: named, or written out within it.
    fn content(
        &mut self,
        node: &'a Node,
        id: usize,
        path: &str,
        open: &mut Vec<&'a str>,
    ) -> Result<(), SchemaError> {
        match (node.attribute("type"), node.children.as_slice()) {
            (Some(name), []) => self.named_content(node, name, id, path, open),
            (None, [child]) if child.tag == "simpleType" => {
                let leaf = simple_type(self.file, child, &self.named)?;
                self.set_leaf(id, leaf);
                Ok(())
            }
            (None, [child]) if child.tag == "complexType" => self.group(child, id, path, open),
            (None, []) => Err(self.error(node, "an xsd:element without a type is not supported")),
            (_, [child, ..]) => {
                Err(self.error(child, format!("xsd:{} is not supported here", child.tag)))
            }
        }
    }

    fn named_content(
        &mut self,
        node: &'a Node,
        name: &'a str,
        id: usize,
        path: &str,
        open: &mut Vec<&'a str>,
    ) -> Result<(), SchemaError> {
        if let Some(leaf) = self.named.get(name) {
            let leaf = leaf.clone();
            self.set_leaf(id, leaf);
            return Ok(());
        }
        if let Some(complex) = self.complex.get(name).copied() {
            if open.contains(&name) {
                return Err(self.error(
                    node,
                    "an xsd:complexType that holds itself is not supported",
                ));
            }
            open.push(name);
            self.group(complex, id, path, open)?;
            open.pop();
            return Ok(());
        }
        let builtin = name.strip_prefix("{xsd}").and_then(Builtin::named);
        let leaf = builtin.map(SimpleType::builtin).ok_or_else(|| {
            self.error(
                node,
                "type names a type that is not supported or not declared",
            )
        })?;
        self.set_leaf(id, leaf);
        Ok(())
    }

    fn set_leaf(&mut self, id: usize, leaf: SimpleType) {
        if let Some(element) = self.elements.get_mut(id) {
            element.leaf = Some(leaf);
        }
    }

    fn group(
        &mut self,
        node: &'a Node,
        id: usize,
        path: &str,
        open: &mut Vec<&'a str>,
    ) -> Result<(), SchemaError> {
        node.only(self.file, &["name", "mixed", "abstract", "id"])?;
        node.fixed(self.file, "mixed", "false")?;
        node.fixed(self.file, "abstract", "false")?;
        let [sequence] = node.children.as_slice() else {
            return Err(match node.children.get(1) {
                Some(second) => {
                    self.error(second, format!("xsd:{} is not supported here", second.tag))
                }
                None => self.error(
                    node,
                    "an xsd:complexType without xsd:sequence is not supported",
                ),
            });
        };
        if sequence.tag != "sequence" {
            return Err(self.error(
                sequence,
                format!("xsd:{} is not supported here", sequence.tag),
            ));
        }
        sequence.only(self.file, &["minOccurs", "maxOccurs", "id"])?;
        sequence.fixed(self.file, "minOccurs", "1")?;
        sequence.fixed(self.file, "maxOccurs", "1")?;
        for child in &sequence.children {
            if child.tag != "element" {
                return Err(self.error(
                    child,
                    format!("xsd:{} in xsd:sequence is not supported", child.tag),
                ));
            }
            let child = self.element(child, path, false, open)?;
            if let Some(element) = self.elements.get_mut(id) {
                element.children.push(child);
            }
        }
        Ok(())
    }

    fn occurrence(&self, node: &Node) -> Result<(u32, Option<u32>), SchemaError> {
        let number = |name: &str| match node.attribute(name) {
            None => Ok(1),
            Some(text) => text
                .parse::<u32>()
                .map_err(|_| self.error(node, format!("{name} is not a number"))),
        };
        let min = number("minOccurs")?;
        let max = match node.attribute("maxOccurs") {
            Some("unbounded") => None,
            _ => Some(number("maxOccurs")?),
        };
        if max.is_some_and(|max| max < min || max == 0) {
            return Err(self.error(node, "maxOccurs below minOccurs or zero is not supported"));
        }
        Ok((min, max))
    }

    /// One tag must never fit two places of a sequence at once.
    ///
    /// Source: XML Schema 1.0 part 1, section 3.8.6, unique particle attribution.
    fn deterministic(&self, line: u64) -> Result<(), SchemaError> {
        for group in &self.elements {
            for (at, id) in group.children.iter().enumerate() {
                let Some(one) = self
                    .elements
                    .get(*id)
                    .filter(|one| one.max != Some(one.min))
                else {
                    continue;
                };
                for later in group
                    .children
                    .iter()
                    .skip(at + 1)
                    .filter_map(|id| self.elements.get(*id))
                {
                    if later.tag == one.tag {
                        let reason = format!("{} fits two places of xsd:sequence", one.path);
                        return Err(SchemaError::new(self.file, line, reason));
                    }
                    if later.min > 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
