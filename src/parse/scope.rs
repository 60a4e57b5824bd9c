//! Namespaces in force at a place of the document.

/// A namespace of the document: two names are in the same namespace when
/// their ids are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId(u32);

impl NamespaceId {
    /// No namespace at all.
    pub const NONE: Self = Self(0);
    /// The one that the prefix `xml` is bound to.
    pub const XML: Self = Self(1);
    /// `http://www.w3.org/2001/XMLSchema-instance`.
    pub const INSTANCE: Self = Self(2);
    const FIRST_FREE: u32 = 3;
}

/// `xsi`: <https://www.w3.org/TR/xmlschema-1/#xsi.namespace>.
const INSTANCE_URI: &str = "http://www.w3.org/2001/XMLSchema-instance";
const XML_URI: &str = "http://www.w3.org/XML/1998/namespace";

/// One declaration.
struct Binding {
    prefix: String,
    uri: String,
    id: NamespaceId,
    depth: usize,
}

/// The stack of namespace declarations.
pub struct Scope {
    bindings: Vec<Binding>,
    default: NamespaceId,
    next: u32,
}

impl Scope {
    pub fn new() -> Self {
        Self {
            bindings: Vec::new(),
            default: NamespaceId::NONE,
            next: NamespaceId::FIRST_FREE,
        }
    }

    /// Declarations in force.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// A declaration on the element at `depth`; an empty prefix sets the
    /// default namespace.
    pub fn bind(&mut self, prefix: &str, uri: String, depth: usize) {
        let id = self.intern(&uri);
        if prefix.is_empty() {
            self.default = id;
        }
        self.bindings.push(Binding {
            prefix: prefix.to_owned(),
            uri,
            id,
            depth,
        });
    }

    fn intern(&mut self, uri: &str) -> NamespaceId {
        match uri {
            "" => NamespaceId::NONE,
            XML_URI => NamespaceId::XML,
            INSTANCE_URI => NamespaceId::INSTANCE,
            _ => self.known(uri).unwrap_or_else(|| {
                let id = NamespaceId(self.next);
                // Wraps only after four thousand million declarations.
                self.next = self.next.wrapping_add(1).max(NamespaceId::FIRST_FREE);
                id
            }),
        }
    }

    fn known(&self, uri: &str) -> Option<NamespaceId> {
        self.bindings
            .iter()
            .find(|binding| binding.uri == uri)
            .map(|binding| binding.id)
    }

    /// The element at `depth` ends, and its declarations with it.
    #[inline]
    pub fn leave(&mut self, depth: usize) {
        if self.bindings.last().is_some_and(|last| last.depth >= depth) {
            self.bindings.retain(|binding| binding.depth < depth);
            self.default = self.resolve("").unwrap_or(NamespaceId::NONE);
        }
    }

    /// The namespace of elements without a prefix.
    #[inline]
    pub fn default_namespace(&self) -> NamespaceId {
        self.default
    }

    /// The namespace of a prefix, if it is bound.
    pub fn resolve(&self, prefix: &str) -> Option<NamespaceId> {
        if prefix == "xml" {
            return Some(NamespaceId::XML);
        }
        self.bindings
            .iter()
            .rev()
            .find(|binding| binding.prefix == prefix)
            .map(|binding| binding.id)
    }

    /// The name of a namespace in force.
    pub fn uri(&self, id: NamespaceId) -> Option<&str> {
        self.bindings
            .iter()
            .find(|binding| binding.id == id)
            .map(|binding| binding.uri.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_get_equal_ids_and_scopes_end() {
        let mut scope = Scope::new();
        scope.bind("", "urn:a".to_owned(), 1);
        scope.bind("p", "urn:a".to_owned(), 2);
        assert_eq!(scope.resolve("p"), Some(scope.default_namespace()));
        scope.bind("", String::new(), 3);
        assert_eq!(scope.default_namespace(), NamespaceId::NONE);
        scope.leave(3);
        assert_eq!(scope.resolve("p"), Some(scope.default_namespace()));
        scope.leave(2);
        assert_eq!(scope.resolve("p"), None);
        assert_eq!(scope.uri(scope.default_namespace()), Some("urn:a"));
    }
}
