//! Simple types of a schema file: built-in types, named ones, and facets.

use super::pattern;
use super::schema::SchemaError;
use super::types::{Bound, Builtin, SimpleType, WhiteSpace};
use super::xsd_tree::Node;
use regex::Regex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

/// The named simple types of a file.
pub struct Named<'a> {
    nodes: Vec<(String, &'a Node)>,
    types: HashMap<String, SimpleType>,
    /// Compiled patterns: a schema repeats a few of them hundreds of times.
    patterns: RefCell<HashMap<String, Regex>>,
}

impl<'a> Named<'a> {
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            types: HashMap::new(),
            patterns: RefCell::default(),
        }
    }

    /// Adds a declaration; true when the name was there already.
    pub fn declare(&mut self, name: String, node: &'a Node) -> bool {
        let twice = self.nodes.iter().any(|(known, _)| *known == name);
        self.nodes.push((name, node));
        twice
    }

    fn pattern(&self, pattern: &str) -> Result<Regex, String> {
        if let Some(known) = self.patterns.borrow().get(pattern) {
            return Ok(known.clone());
        }
        let compiled = pattern::compile(pattern)
            .map_err(|reason| format!("xsd:pattern: {reason} is not supported"))?;
        let mut patterns = self.patterns.borrow_mut();
        patterns.insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }

    pub fn get(&self, name: &str) -> Option<&SimpleType> {
        self.types.get(name)
    }

    pub fn into_types(self) -> HashMap<String, SimpleType> {
        self.types
    }

    /// Resolves the declarations, bases first whatever their order is.
    pub fn resolve(&mut self, file: &Path) -> Result<(), SchemaError> {
        let mut waiting = std::mem::take(&mut self.nodes);
        while !waiting.is_empty() {
            let before = waiting.len();
            let (ready, later): (Vec<_>, Vec<_>) = waiting
                .iter()
                .cloned()
                .partition(|(_, node)| self.is_ready(node));
            for (name, node) in ready {
                let mut found = simple_type(file, node, self)?;
                found.lineage.insert(0, name.clone());
                self.types.insert(name, found);
            }
            waiting = later;
            if waiting.len() == before {
                let line = waiting.first().map_or(0, |(_, node)| node.line);
                return Err(SchemaError::new(
                    file,
                    line,
                    "the base of an xsd:simpleType is not declared",
                ));
            }
        }
        Ok(())
    }

    fn is_ready(&self, node: &Node) -> bool {
        let base = node
            .children
            .first()
            .and_then(|child| child.attribute("base"));
        // Any other fault is reported when the type is read.
        base.is_none_or(|base| !base.starts_with("{tns}") || self.types.contains_key(base))
    }
}

/// Reads an `xsd:simpleType`.
///
/// # Errors
///
/// The first construct that is not supported.
pub fn simple_type(file: &Path, node: &Node, named: &Named<'_>) -> Result<SimpleType, SchemaError> {
    node.only(file, &["name", "id"])?;
    let error = |node: &Node, reason: String| SchemaError::new(file, node.line, reason);
    let [restriction] = node.children.as_slice() else {
        return Err(error(
            node,
            "an xsd:simpleType without exactly one xsd:restriction".to_owned(),
        ));
    };
    if restriction.tag != "restriction" {
        return Err(error(
            restriction,
            format!("xsd:{} is not supported here", restriction.tag),
        ));
    }
    restriction.only(file, &["base", "id"])?;
    let base = restriction.attribute("base").unwrap_or_default();
    let mut found = match (
        named.get(base),
        base.strip_prefix("{xsd}").and_then(Builtin::named),
    ) {
        (Some(known), _) => known.clone(),
        (None, Some(builtin)) => SimpleType::builtin(builtin),
        (None, None) => {
            return Err(error(
                restriction,
                "base names a type that is not supported or not declared".to_owned(),
            ));
        }
    };
    // Codes and patterns of one restriction are alternatives; a further
    // restriction replaces the codes and adds a pattern.
    let (mut codes, mut patterns) = (Vec::new(), Vec::new());
    for facet in &restriction.children {
        facet.only(file, &["value", "fixed", "id"])?;
        let value = facet
            .attribute("value")
            .ok_or_else(|| error(facet, format!("xsd:{} without a value", facet.tag)))?;
        match facet.tag.as_str() {
            "enumeration" => codes.push(value.to_owned()),
            "pattern" => {
                // Each has to be understood by itself before they are joined.
                named
                    .pattern(value)
                    .map_err(|reason| error(facet, reason))?;
                patterns.push(value);
            }
            _ => apply(&mut found, &facet.tag, value).map_err(|reason| error(facet, reason))?,
        }
    }
    set_codes(&mut found, &codes).map_err(|reason| error(restriction, reason))?;
    set_patterns(&mut found, &patterns, named).map_err(|reason| error(restriction, reason))?;
    Ok(found)
}

fn set_codes(found: &mut SimpleType, codes: &[String]) -> Result<(), String> {
    if codes.is_empty() {
        return Ok(());
    }
    if !found.base.is_text() && !found.base.is_number() {
        return Err(format!(
            "xsd:enumeration of xsd:{} is not supported",
            found.base.name()
        ));
    }
    let space = found.white_space;
    found.codes = codes
        .iter()
        .map(|code| space.apply(code).into_owned())
        .collect();
    if found.base.is_number()
        && found
            .codes
            .iter()
            .any(|code| found.base.decimal(code).is_none())
    {
        return Err("xsd:enumeration has a value that is not of its base".to_owned());
    }
    Ok(())
}

fn set_patterns(
    found: &mut SimpleType,
    patterns: &[&str],
    named: &Named<'_>,
) -> Result<(), String> {
    match patterns {
        [] => {}
        [only] => found.patterns.push(named.pattern(only)?),
        several => {
            let joined: Vec<_> = several
                .iter()
                .map(|pattern| format!("({pattern})"))
                .collect();
            found.patterns.push(named.pattern(&joined.join("|"))?);
        }
    }
    Ok(())
}

/// Applies one facet; the error is what is wrong with it.
fn apply(found: &mut SimpleType, facet: &str, value: &str) -> Result<(), String> {
    let count = || {
        let number = value.trim().parse::<usize>();
        number.map_err(|_| format!("xsd:{facet} is not a number"))
    };
    let (text, number) = (found.base.is_text(), found.base.is_number());
    match facet {
        "length" if text => {
            found.min_length = Some(count()?);
            found.max_length = Some(count()?);
        }
        "minLength" if text => found.min_length = Some(count()?),
        "maxLength" if text => found.max_length = Some(count()?),
        "totalDigits" if number => found.total_digits = Some(count()?),
        "fractionDigits" if number => found.fraction_digits = Some(count()?),
        "minInclusive" | "minExclusive" if number => {
            found.minimum = Some(bound(found.base, value, facet == "minInclusive")?);
        }
        "maxInclusive" | "maxExclusive" if number => {
            found.maximum = Some(bound(found.base, value, facet == "maxInclusive")?);
        }
        "whiteSpace" => white_space(found, value)?,
        _ => {
            return Err(format!(
                "xsd:{facet} of xsd:{} is not supported",
                found.base.name()
            ));
        }
    }
    Ok(())
}

fn bound(base: Builtin, value: &str, inclusive: bool) -> Result<Bound, String> {
    let value = value.trim();
    // A limit may lie outside the base itself, as in `maxExclusive="0"`.
    super::lexical::Decimal::parse(value)
        .map(|_| Bound {
            value: value.to_owned(),
            inclusive,
        })
        .ok_or_else(|| format!("a limit of xsd:{} that is not a number", base.name()))
}

fn white_space(found: &mut SimpleType, value: &str) -> Result<(), String> {
    let wanted = match value {
        "preserve" => WhiteSpace::Preserve,
        "replace" => WhiteSpace::Replace,
        "collapse" => WhiteSpace::Collapse,
        _ => return Err("xsd:whiteSpace has an unknown value".to_owned()),
    };
    if wanted < found.white_space {
        return Err("xsd:whiteSpace is looser than that of its base".to_owned());
    }
    found.white_space = wanted;
    Ok(())
}
