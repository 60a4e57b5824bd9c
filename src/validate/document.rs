//! A message as a tree of schema elements.
//!
//! An arena in preorder: a node's subtree is the run of nodes up to its end.
//! Values lie in one text that is overwritten when it is dropped, and so is a
//! value that is replaced or removed.

use super::Term;
use super::schema::{Element, ElementId, MessageSchema};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroize;

/// A node of a [`Document`]; only meaningful for the document it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// Its place in document order, counted from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What [`Document::write_xml`] does with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep<'a> {
    /// Leave it out, with everything below it.
    Drop,
    /// Write it.
    AsIs,
    /// Write it with another value; for leaves.
    Text(Cow<'a, str>),
}

struct Node {
    element: ElementId,
    parent: Option<u32>,
    /// The first node behind its subtree.
    end: u32,
    position: u32,
    offset: u64,
    text: Range<usize>,
    removed: bool,
}

/// A message as a tree of schema elements in document order.
pub struct Document {
    schema: Arc<MessageSchema>,
    nodes: Vec<Node>,
    text: String,
    open: Vec<u32>,
}

impl Document {
    /// An empty document with room for `text_bytes` of values, so that they
    /// need not be moved, which would leave a copy behind.
    pub(super) fn new(schema: Arc<MessageSchema>, text_bytes: usize) -> Self {
        Self {
            schema,
            nodes: Vec::new(),
            text: String::with_capacity(text_bytes),
            open: Vec::new(),
        }
    }

    /// Adds a node below the open one; gives its number for [`Self::close`].
    pub(super) fn open(&mut self, element: ElementId, position: u32, offset: u64) -> usize {
        let id = self.nodes.len();
        let at = self.text.len();
        let number = number(id);
        self.nodes.push(Node {
            element,
            parent: self.open.last().copied(),
            end: number + 1,
            position,
            offset,
            text: at..at,
            removed: false,
        });
        self.open.push(number);
        id
    }

    /// Adds to the value of the open node.
    pub(super) fn push_text(&mut self, text: &str) {
        self.make_room(text.len());
        self.text.push_str(text);
        let end = self.text.len();
        if let Some(node) = self
            .open
            .last()
            .and_then(|at| self.nodes.get_mut(*at as usize))
        {
            node.text.end = end;
        }
    }

    /// The open node, of this number, is complete.
    pub(super) fn close(&mut self, id: usize) {
        self.open.pop();
        let end = number(self.nodes.len());
        if let Some(node) = self.nodes.get_mut(id) {
            node.end = end;
        }
    }

    /// The open node, of this number, was never there.
    pub(super) fn discard(&mut self, id: usize) {
        self.open.pop();
        if let Some(node) = self.nodes.get(id) {
            let start = node.text.start;
            self.wipe(start..self.text.len());
            self.text.truncate(start);
        }
        self.nodes.truncate(id);
    }

    fn node(&self, id: NodeId) -> &Node {
        #[expect(
            clippy::indexing_slicing,
            reason = "a NodeId is only made for a node of this document"
        )]
        &self.nodes[id.0 as usize]
    }

    /// The schema that the message was read with.
    #[must_use]
    pub fn schema(&self) -> &Arc<MessageSchema> {
        &self.schema
    }

    /// How many nodes it has, removed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// False: a document has at least its root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes of all values together, about.
    #[must_use]
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// The number of a node's element in the schema.
    #[must_use]
    pub fn element_index(&self, id: NodeId) -> ElementId {
        self.nodes.get(id.index()).map_or(0, |node| node.element)
    }

    /// False for a code that its list does not hold and that was let through
    /// with a warning.
    #[must_use]
    pub fn is_listed_code(&self, id: NodeId) -> bool {
        let leaf = self.element(id).leaf.as_ref();
        leaf.is_none_or(|leaf| {
            leaf.codes.is_empty() || leaf.codes.iter().any(|code| code == self.text(id))
        })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// The schema element of a node.
    #[must_use]
    pub fn element(&self, id: NodeId) -> &Element {
        self.schema.element(self.node(id).element)
    }

    /// What a node means.
    #[must_use]
    pub fn term(&self, id: NodeId) -> Option<Term> {
        self.element(id).term
    }

    /// The node that a node is directly in.
    #[must_use]
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).parent.map(NodeId)
    }

    /// The nodes directly in a node, without removed ones.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.run(id, |node| node.end)
    }

    /// Every node below a node in document order, without removed ones and
    /// what is below them.
    pub fn descendants(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.run(id, |_| 0)
    }

    /// Walks below a node; `next` is where to go on behind a node, 0 for the
    /// node right behind it.
    fn run(
        &self,
        id: NodeId,
        next: impl Fn(&Node) -> u32 + 'static,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let end = self.node(id).end;
        let mut at = id.0 + 1;
        std::iter::from_fn(move || {
            while at < end {
                let found = NodeId(at);
                let node = self.node(found);
                if node.removed {
                    at = node.end;
                    continue;
                }
                at = next(node).max(at + 1);
                return Some(found);
            }
            None
        })
    }

    /// The value of a leaf, white space processed as its type says; empty
    /// for a group.
    #[must_use]
    pub fn text(&self, id: NodeId) -> &str {
        self.text
            .get(self.node(id).text.clone())
            .unwrap_or_default()
    }

    /// The first child with a meaning.
    #[must_use]
    pub fn child(&self, id: NodeId, term: Term) -> Option<NodeId> {
        self.children(id)
            .find(|child| self.term(*child) == Some(term))
    }

    /// The value of the first child with a meaning.
    #[must_use]
    pub fn child_text(&self, id: NodeId, term: Term) -> Option<&str> {
        self.child(id, term).map(|child| self.text(child))
    }

    /// Replaces the value of a leaf; the old one is overwritten.
    pub fn set_text(&mut self, id: NodeId, text: &str) {
        let old = self.node(id).text.clone();
        self.wipe(old.clone());
        let start = if text.len() <= old.len() {
            self.text
                .replace_range(old.start..old.start + text.len(), text);
            old.start
        } else {
            self.make_room(text.len());
            self.text.push_str(text);
            self.text.len() - text.len()
        };
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.text = start..start + text.len();
        }
    }

    /// Removes a node with everything below it; their values are overwritten.
    pub fn remove(&mut self, id: NodeId) {
        for at in id.0..self.node(id).end {
            let text = self.node(NodeId(at)).text.clone();
            self.wipe(text.clone());
            if let Some(node) = self.nodes.get_mut(at as usize) {
                node.text = text.start..text.start;
                node.removed = true;
            }
        }
    }

    /// Overwrites a stretch of the arena, of the same length and so in place.
    fn wipe(&mut self, range: Range<usize>) {
        let zeros = "\0".repeat(range.len());
        self.text.replace_range(range, &zeros);
    }

    /// Grows the arena without leaving a copy of the values behind.
    fn make_room(&mut self, more: usize) {
        if self.text.capacity() - self.text.len() < more {
            let mut larger = String::with_capacity((self.text.len() + more) * 2);
            larger.push_str(&self.text);
            self.text.zeroize();
            self.text = larger;
        }
    }

    /// Tags with positions below the root, as in findings; empty for the root.
    #[must_use]
    pub fn path(&self, id: NodeId) -> String {
        let mut parts = Vec::new();
        let mut at = Some(id);
        while let Some(here) = at {
            at = self.parent(here);
            if at.is_some() {
                let position = self.node(here).position;
                parts.push(format!("{}[{position}]", self.element(here).tag));
            }
        }
        parts.reverse();
        parts.join("/")
    }

    /// Where the start tag is: bytes in the decoded text, for
    /// [`crate::parse::places`].
    #[must_use]
    pub fn offset(&self, id: NodeId) -> u64 {
        self.node(id).offset
    }

    /// Writes the message in UTF-8, in the namespace of its schema, without
    /// space between elements. `keep` is asked for every node that is not
    /// below a dropped one.
    pub fn write_xml<'k>(&self, out: &mut Vec<u8>, mut keep: impl FnMut(NodeId) -> Keep<'k>) {
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        if !self.nodes.is_empty() && !self.node(self.root()).removed {
            self.write_node(self.root(), out, &mut keep);
        }
    }

    /// Recursion is as deep as the schema, which the reader of schemas bounds.
    fn write_node<'k>(
        &self,
        id: NodeId,
        out: &mut Vec<u8>,
        keep: &mut impl FnMut(NodeId) -> Keep<'k>,
    ) {
        let kept = keep(id);
        if kept == Keep::Drop {
            return;
        }
        let tag = self.element(id).tag.as_bytes();
        out.push(b'<');
        out.extend_from_slice(tag);
        if id == self.root() && !self.schema.namespace.is_empty() {
            out.extend_from_slice(b" xmlns=\"");
            escape(&self.schema.namespace, out);
            out.push(b'"');
        }
        out.push(b'>');
        match kept {
            Keep::Text(text) => escape(&text, out),
            Keep::Drop | Keep::AsIs => {
                escape(self.text(id), out);
                for child in self.children(id) {
                    self.write_node(child, out, keep);
                }
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(tag);
        out.push(b'>');
    }
}

/// Writes text so that a reader gets the same text back.
fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\r' => out.extend_from_slice(b"&#13;"),
            byte => out.push(byte),
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index)
        .expect("a body is limited to far less than 4 GiB, and a node takes 7 bytes of it")
}

impl Drop for Document {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("message", &self.schema.name)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}
