//! The reader: quick-xml's events with the checks that it leaves out.

use super::attributes::{Attribute, normalise, split};
use super::chars::{Text, check_text, is_blank, is_name, push_normalised, reference};
use super::decode::{Decoded, sniff};
use super::meter::Meter;
use super::scope::{NamespaceId, Scope};
use super::{EVENT_BYTES, MAX_BINDINGS, MAX_DEPTH, MAX_NAME_BYTES, ParseError, declaration};
use crate::domain::Code;
use quick_xml::errors::{Error, SyntaxError};
use quick_xml::events::{BytesStart, Event as Token};
use quick_xml::name::QName;
use std::borrow::Cow;
use std::io::{self, BufRead};

/// A buffer that grew beyond this for one event is given back.
const KEEP_BYTES: usize = 2 * EVENT_BYTES;

/// What to do with processing instructions, and with declarations that the
/// recommendation on namespaces forbids but libxml2 only warns about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// Refuse them: SIVI messages have no use for them.
    Refuse,
    /// Pass over them, as libxml2 does.
    PassOver,
}

/// One thing in a document.
#[derive(Debug)]
pub enum Event<'a> {
    /// An element begins.
    Start(Start<'a>),
    /// The innermost element ends.
    End,
    /// A run of text within an element, references resolved.
    Text(&'a str),
    /// Text that was written as CDATA.
    Cdata(&'a str),
    /// Something without meaning: a comment, space around the root.
    Nothing,
    /// The document is complete.
    Eof,
}

/// The start of an element.
#[derive(Debug)]
pub struct Start<'a> {
    tag: BytesStart<'a>,
    local_at: usize,
    /// Its namespace; `None` when its prefix is not bound.
    pub namespace: Option<NamespaceId>,
    /// Its attributes without namespace declarations.
    pub attributes: &'a [Attribute],
}

impl Start<'_> {
    /// Its name without prefix.
    #[inline]
    #[must_use]
    pub fn local(&self) -> &str {
        let QName(name) = self.tag.name();
        name.get(self.local_at..).unwrap_or_default()
    }
}

/// Where in the document the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Prolog,
    Root,
    Epilog,
}

/// Reads a document event by event.
pub struct Reader<R> {
    tokens: quick_xml::Reader<Meter<Decoded<R>>>,
    buffer: Vec<u8>,
    /// Text that is not in the buffer as it is handed out.
    resolved: String,
    state: State,
}

/// What is known about the document so far.
struct State {
    part: Part,
    depth: usize,
    /// The last tag was empty, so its end comes next.
    closing: bool,
    scope: Scope,
    attributes: Vec<Attribute>,
    instructions: Instructions,
    /// Where the last event began.
    offset: u64,
}

impl<R: BufRead> Reader<R> {
    /// A reader of `input`, of which `head` is the beginning.
    ///
    /// # Errors
    ///
    /// [`ParseError::Refused`] for an encoding that is not supported.
    pub fn new(head: &[u8], input: R, instructions: Instructions) -> Result<Self, ParseError> {
        let encoding = sniff(head).map_err(ParseError::Refused)?;
        let source = Meter::new(Decoded::new(encoding, input), EVENT_BYTES);
        let mut tokens = quick_xml::Reader::from_reader(source);
        let config = tokens.config_mut();
        config.check_comments = true;
        config.check_end_names = true;
        Ok(Self {
            tokens,
            buffer: Vec::with_capacity(1024),
            resolved: String::new(),
            state: State {
                part: Part::Prolog,
                depth: 0,
                closing: false,
                scope: Scope::new(),
                attributes: Vec::new(),
                instructions,
                offset: 0,
            },
        })
    }

    /// Byte offset in the decoded text at which the last event began.
    pub fn offset(&self) -> u64 {
        self.state.offset
    }

    /// Bytes that the events from now on may take; [`EVENT_BYTES`] is usual.
    pub fn allow(&mut self, bytes: usize) {
        self.tokens.get_mut().allow(bytes);
    }

    /// The namespace that a prefix is bound to at this place.
    pub fn namespace(&self, prefix: &str) -> Option<NamespaceId> {
        if prefix.is_empty() {
            return Some(self.state.scope.default_namespace());
        }
        self.state.scope.resolve(prefix)
    }

    /// The name of a namespace that is in force at this place.
    pub fn uri(&self, namespace: NamespaceId) -> Option<&str> {
        self.state.scope.uri(namespace)
    }

    /// The next event, and where it begins: bytes in the decoded text.
    ///
    /// # Errors
    ///
    /// [`ParseError::Refused`] when the document breaks a rule of this
    /// module, [`ParseError::Io`] when the source fails. Nothing can be read
    /// after an error.
    pub fn next_event(&mut self) -> Result<(u64, Event<'_>), ParseError> {
        let Self {
            tokens,
            buffer,
            resolved,
            state,
        } = self;
        if state.closing {
            state.closing = false;
            state.leave();
            return Ok((state.offset, Event::End));
        }
        buffer.clear();
        if buffer.capacity() > KEEP_BYTES {
            buffer.shrink_to(KEEP_BYTES);
        }
        tokens.get_mut().restart();
        state.offset = tokens.buffer_position();
        let offset = state.offset;
        let token = match tokens.read_event_into(buffer) {
            Ok(token) => token,
            Err(error) => {
                let exceeded = tokens.get_ref().exceeded();
                let offset = if matches!(error, Error::IllFormed(_)) {
                    tokens.error_position()
                } else {
                    offset
                };
                return Err(explain(error, exceeded, offset));
            }
        };
        state
            .take(token, resolved)
            .map(|event| (offset, event))
            .map_err(|code| ParseError::refused(code, offset))
    }
}

/// What an error of quick-xml means for the sender.
fn explain(error: Error, exceeded: bool, offset: u64) -> ParseError {
    if exceeded {
        return ParseError::refused(Code::LimitExceeded, offset);
    }
    match error {
        Error::Io(cause) => ParseError::Io(io::Error::new(cause.kind(), cause)),
        Error::Encoding(_) => ParseError::refused(Code::EncodingBroken, offset),
        Error::Syntax(SyntaxError::UnclosedDoctype) => {
            ParseError::refused(Code::DoctypeForbidden, offset)
        }
        Error::Syntax(_)
        | Error::IllFormed(_)
        | Error::InvalidAttr(_)
        | Error::Escape(_)
        | Error::Namespace(_) => ParseError::refused(Code::NotWellFormed, offset),
    }
}

impl State {
    fn take<'a>(
        &'a mut self,
        token: Token<'a>,
        resolved: &'a mut String,
    ) -> Result<Event<'a>, Code> {
        match token {
            Token::Start(tag) => self.start(tag),
            Token::Empty(tag) => {
                self.closing = true;
                self.start(tag)
            }
            Token::End(_) => {
                self.leave();
                Ok(Event::End)
            }
            Token::Text(text) => self.text(borrowed(&text.into_inner()), resolved),
            Token::CData(text) => self.cdata(borrowed(&text.into_inner()), resolved),
            Token::GeneralRef(name) => self.reference(&name, resolved),
            Token::Comment(text) => check_text(&text, false).map(|_| Event::Nothing),
            Token::Decl(content) => self.declaration(&content),
            Token::PI(content) => self.instruction(&content),
            Token::DocType(_) => Err(Code::DoctypeForbidden),
            Token::Eof => match self.part {
                Part::Epilog => Ok(Event::Eof),
                Part::Prolog | Part::Root => Err(Code::NotWellFormed),
            },
        }
    }

    fn leave(&mut self) {
        self.scope.leave(self.depth);
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            self.part = Part::Epilog;
        }
    }

    fn start<'a>(&'a mut self, tag: BytesStart<'a>) -> Result<Event<'a>, Code> {
        let QName(name) = tag.name();
        match self.part {
            Part::Prolog => self.part = Part::Root,
            Part::Root => {}
            Part::Epilog => return Err(Code::NotWellFormed),
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH || name.len() > MAX_NAME_BYTES {
            return Err(Code::LimitExceeded);
        }
        if !is_name(name) {
            return Err(Code::NotWellFormed);
        }
        self.attributes.clear();
        let rest = tag.attributes_raw();
        if !rest.is_empty() {
            self.attributes(rest)?;
        }
        let (namespace, local_at) = match name.split_once(':') {
            None => (Some(self.scope.default_namespace()), 0),
            Some((prefix, local)) => {
                if prefix.is_empty() || !is_name(local) || local.contains(':') {
                    return Err(Code::NotWellFormed);
                }
                (self.scope.resolve(prefix), prefix.len() + 1)
            }
        };
        if namespace.is_none() && self.instructions == Instructions::Refuse {
            return Err(Code::NotWellFormed);
        }
        Ok(Event::Start(Start {
            tag,
            local_at,
            namespace,
            attributes: &self.attributes,
        }))
    }

    fn attributes(&mut self, rest: &str) -> Result<(), Code> {
        let found = split(rest)?;
        for raw in &found {
            if raw.name == "xmlns" {
                let uri = normalise(raw.value)?;
                self.bind("", uri)?;
            } else if let Some(prefix) = raw.name.strip_prefix("xmlns:") {
                let uri = normalise(raw.value)?;
                self.bind_prefix(prefix, uri)?;
            }
        }
        for raw in &found {
            if raw.name != "xmlns" && !raw.name.starts_with("xmlns:") {
                let attribute = self.attribute(raw.name, normalise(raw.value)?)?;
                self.attributes.push(attribute);
            }
        }
        self.no_two_alike()
    }

    /// Two prefixes of one namespace can hide two attributes of one name.
    fn no_two_alike(&self) -> Result<(), Code> {
        let strict = self.instructions == Instructions::Refuse;
        let alike = |(at, one): (usize, &Attribute)| {
            let before = self.attributes.get(..at).unwrap_or_default();
            before
                .iter()
                .any(|other| other.local == one.local && other.namespace == one.namespace)
        };
        if strict && self.attributes.iter().enumerate().any(alike) {
            return Err(Code::NotWellFormed);
        }
        Ok(())
    }

    fn attribute(&self, name: &str, value: String) -> Result<Attribute, Code> {
        let (namespace, local) = match name.split_once(':') {
            None => (Some(NamespaceId::NONE), name),
            Some((prefix, local)) => {
                if prefix.is_empty() || !is_name(local) || local.contains(':') {
                    return Err(Code::NotWellFormed);
                }
                (self.scope.resolve(prefix), local)
            }
        };
        if namespace.is_none() && self.instructions == Instructions::Refuse {
            return Err(Code::NotWellFormed);
        }
        Ok(Attribute {
            local: local.to_owned(),
            namespace,
            value,
        })
    }

    fn bind(&mut self, prefix: &str, uri: String) -> Result<(), Code> {
        if self.scope.len() >= MAX_BINDINGS {
            return Err(Code::LimitExceeded);
        }
        self.scope.bind(prefix, uri, self.depth);
        Ok(())
    }

    /// Source: Namespaces in XML 1.0, sections 2.2 and 3.
    fn bind_prefix(&mut self, prefix: &str, uri: String) -> Result<(), Code> {
        if !is_name(prefix) || prefix.starts_with(':') {
            return Err(Code::NotWellFormed);
        }
        let reserved = matches!(
            uri.as_str(),
            "http://www.w3.org/XML/1998/namespace" | "http://www.w3.org/2000/xmlns/"
        );
        let fine = match prefix {
            "xml" => uri == "http://www.w3.org/XML/1998/namespace",
            "xmlns" => false,
            _ => !uri.is_empty() && !reserved && !prefix.contains(':'),
        };
        if !fine {
            return match self.instructions {
                Instructions::Refuse => Err(Code::NotWellFormed),
                // libxml2 warns, and reads on as if it were not there.
                Instructions::PassOver => Ok(()),
            };
        }
        if prefix == "xml" {
            return Ok(());
        }
        self.bind(prefix, uri)
    }

    fn text<'a>(&mut self, text: &'a str, resolved: &'a mut String) -> Result<Event<'a>, Code> {
        if self.part != Part::Root {
            // A second byte order mark or anything else that is not white
            // space.
            return if is_blank(text) {
                Ok(Event::Nothing)
            } else {
                Err(Code::NotWellFormed)
            };
        }
        match check_text(text, true)? {
            Text::Plain => Ok(Event::Text(text)),
            Text::LineEnds => {
                resolved.clear();
                push_normalised(text, resolved);
                Ok(Event::Text(resolved))
            }
        }
    }

    fn cdata<'a>(&mut self, text: &'a str, resolved: &'a mut String) -> Result<Event<'a>, Code> {
        if self.part != Part::Root {
            return Err(Code::NotWellFormed);
        }
        match check_text(text, false)? {
            Text::Plain => Ok(Event::Cdata(text)),
            Text::LineEnds => {
                resolved.clear();
                push_normalised(text, resolved);
                Ok(Event::Cdata(resolved))
            }
        }
    }

    fn reference<'a>(&mut self, name: &str, resolved: &'a mut String) -> Result<Event<'a>, Code> {
        let c = reference(name)?;
        if self.part != Part::Root {
            return Err(Code::NotWellFormed);
        }
        resolved.clear();
        resolved.push(c);
        Ok(Event::Text(resolved))
    }

    fn declaration(&mut self, content: &str) -> Result<Event<'static>, Code> {
        if self.offset == 0 && declaration::is_valid(content) {
            Ok(Event::Nothing)
        } else {
            Err(Code::NotWellFormed)
        }
    }

    fn instruction(&mut self, content: &str) -> Result<Event<'static>, Code> {
        let target = content
            .split([' ', '\t', '\r', '\n'])
            .next()
            .unwrap_or_default();
        if !is_name(target) || target.eq_ignore_ascii_case("xml") {
            return Err(Code::NotWellFormed);
        }
        check_text(content, false)?;
        match self.instructions {
            Instructions::Refuse => Err(Code::InstructionForbidden),
            Instructions::PassOver => Ok(Event::Nothing),
        }
    }
}

/// Tokens of a buffered source borrow from the buffer.
fn borrowed<'a>(text: &Cow<'a, str>) -> &'a str {
    if let Cow::Borrowed(text) = text {
        text
    } else {
        ""
    }
}
