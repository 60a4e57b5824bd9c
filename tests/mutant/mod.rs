//! A seeded mutator of messages: structure, values, names and damage.

/// Splitmix64: small, and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

const VALUES: &[&str] = &[
    "",
    " ",
    "\n",
    "0",
    "-0",
    "+5",
    "-5",
    "00000000005",
    "1.00",
    "100.00",
    "1.",
    ".5",
    "1.5",
    "1.234",
    "0001.50",
    "9999.99",
    "99999.99",
    "10000.00",
    "-1.00",
    "+1.00",
    "1,00",
    "1e1",
    " 1.00 ",
    "٣",
    "NaN",
    "999999999",
    "0999999999",
    "1234567890",
    "2017-01-01",
    "2017-02-29",
    "2016-02-29",
    "1900-02-29",
    "2000-02-29",
    "2017-13-01",
    "2017-00-10",
    "2017-04-31",
    "2017-12-31",
    "-0001-01-01",
    "-0004-02-29",
    "0000-01-01",
    "12017-01-01",
    "02017-01-01",
    "2017-01-01Z",
    "2017-01-01+01:00",
    "2017-01-01+14:00",
    "2017-01-01-14:00",
    "2017-01-01+14:01",
    "2017-01-01+1:00",
    "2017-01-01z",
    "2017-1-1",
    "20170101",
    "01-01-2017",
    " 2017-01-01",
    "2017-01-01 ",
    "\n2017-01-01\n",
    "99999999999999999999-01-01",
    "2017-01-01T00:00:00",
    "24:00:00",
    "24:00:00.0",
    "24:00:00.1",
    "24:00:01",
    "23:59:60",
    "23:59:59.999",
    "12:00:59.99999999999999",
    "12:00:00Z",
    "12:00:00+14:00",
    "12:00:00+14:30",
    "12:00",
    "1:00:00",
    " 12:00:00",
    "12:00:00 ",
    "12:00:00.",
    "12:60:00",
    "25:00:00",
    "J",
    "N",
    "j",
    " J",
    "J ",
    "JN",
    "M",
    "V",
    "01",
    "02",
    "99",
    "1",
    "ÀÉÏÖÛÇ",
    "ÀÉÏÖÛÇÑ",
    "😀",
    "😀😀😀😀😀😀",
    "AAAAAA",
    "AAAAAAA",
    "A1",
    "\u{a0}",
    "<![CDATA[J]]>",
    "<![CDATA[]]>",
    "<![CDATA[2017-01-01]]>",
    "<![CDATA[ ]]>x",
    "x<!-- c -->",
    "<!-- c -->",
    "20<!-- c -->17-01-01",
    "<?p x?>",
    "2017<?p?>-01-01",
    "&#74;",
    "&#x4A;",
    "&#32;",
    "&#9;",
    "&#13;",
    "&#10;",
    "&amp;",
    "&lt;&gt;",
    "&quot;",
    "&apos;x",
    "&#x1F600;",
    "&#0049;",
    "a\tb",
    "a\r\nb",
    "a\rb",
    "a\nb",
    "a  b",
    "true",
    "x]]&gt;",
    "a>b",
    "]]",
    "\u{fffd}",
    "\u{85}",
    "00100",
    "00006",
    "00002",
    "00001",
    "00105",
    "00500",
    "99999",
    "1011AB",
    "1011ab",
    "1011 AB",
    "123456789012345678901234567890",
    "<x/>",
    "<x xmlns=''/>",
    "]]>",
    "&#1;",
    "&foo;",
    "&",
    "\u{1}",
    "\u{ffff}",
    "&#xD800;",
    "&#x;",
    "<",
    "&#65",
    "<!-- a -- b -->",
    "<![CDATA[",
];

const NAMES: &[&str] = &[
    "Gebdat", "SofiNr", "Vrzm", "Com", "Cntprsn", "Ingdat", "x", "gebdat", "Wrknmr", "BrAlg",
    "VrwrkCd", "SrtComCd",
];

const ATTRIBUTES: &[&str] = &[
    " a=\"1\"",
    " xsi:nil=\"true\"",
    " xsi:nil=\"false\"",
    " xsi:type=\"xsd:date\"",
    " xsi:type=\"xsd:string\"",
    " xsi:type=\"xsd:token\"",
    " xsi:type=\"xsd:time\"",
    " xsi:schemaLocation=\"a b\"",
    " xsi:noNamespaceSchemaLocation=\"a.xsd\"",
    " xsi:schemaLocation=\"a\"",
    " xsi:foo=\"1\"",
    " xml:lang=\"nl\"",
    " xmlns:q=\"urn:q\"",
    " xmlns=\"\"",
    " xmlns:q=\"\"",
    " xmlns:xml=\"x\"",
    " q:a=\"1\"",
    " a=\"1\" a=\"2\"",
    " a=1",
    " a",
    "a=\"1\"",
    " xmlns:q='a' xmlns:q='b'",
    "\n\t",
    " ",
    " xmlns:q=\"&#1;\"",
    " xmlns:q=\"<\"",
    " xmlns:q=\"&amp;\"",
    " xmlns:q='>'",
    " xmlns:q='a'xmlns:r='b'",
    " xmlns:q='&foo;'",
    " xmlns:q='\"'",
    " xmlns:a:b='x'",
    " xsi:type=\"date\"",
    " xsi:type=\" xsd:date\"",
    " xsi:type=\"\"",
    " /",
    " xmlns:1='x'",
    " xmlns:é='x'",
];

const INSERTS: &[&str] = &[
    "<!-- c -->",
    "<?p x?>",
    "<?p?>",
    "<![CDATA[ ]]>",
    "<![CDATA[]]>",
    "x",
    "&#32;",
    "&#10;",
    "&#160;",
    "\u{a0}",
    " ",
    "\r\n",
    "\n\n",
    "<x/>",
    "</x>",
    "<x>",
    "]]>",
    "&amp;",
    "\u{1}",
    "<!---->",
    "<!-- - -->",
    "<!-- -- -->",
    "<?xml version='1.0'?>",
    "<?XML a?>",
    "<? p?>",
    "<!x>",
    "<",
    ">",
    "&",
    "<x:y/>",
    "<1/>",
    "</>",
    "<>",
    "<?",
    "<!--",
    "<!",
    "\u{feff}",
    "<?a:b c?>",
    "<?xml-a b?>",
    "<?p/x?>",
    "\u{fffe}",
    "<é/>",
];

const PROLOGS: &[&str] = &[
    "",
    "<?xml version=\"1.0\"?>",
    "<?xml version='1.0' encoding='utf-8'?>",
    "<?xml version='1.0' encoding='UTF8'?>",
    "<?xml version=\"1.1\"?>",
    "<?xml version=\"2.0\"?>",
    "<?xml version=\"1.0\" standalone=\"yes\"?>",
    "<?xml version=\"1.0\" standalone=\"maybe\"?>",
    "<?xml?>",
    "<?xml encoding='utf-8'?>",
    " <?xml version='1.0'?>",
    "\n",
    "\u{feff}",
    "\u{feff}<?xml version='1.0'?>",
    "\u{feff}\u{feff}",
    "<?xml version='1.0'?><?xml version='1.0'?>",
    "<?xml version='1.0'?>\n<!-- c -->\n",
    "<?p?>",
    "x",
    "<?xml version='1.0'encoding='utf-8'?>",
    "<?xml  version = '1.0' ?>",
    "<?xml version='1.'?>",
    "&#32;",
    "<![CDATA[ ]]>",
    "<?xml version='1.0' foo='1'?>",
    "<?xml version='1.0' encoding=''?>",
    "<?XML version='1.0'?>",
    "<?xml version='1.0' standalone='yes' encoding='utf-8'?>",
];

const EPILOGS: &[&str] = &[
    "\n",
    " ",
    "<!-- c -->",
    "<?p?>",
    "x",
    "<x/>",
    "</x>",
    "&#32;",
    "<![CDATA[ ]]>",
    "\u{feff}",
    "<",
    "<!--",
    "<?xml version='1.0'?>",
    "&amp;",
];

const INSTANCE: &str = " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\"";

/// What the bare verdict forgives and receipt does not.
pub fn has_forgiven(document: &[u8]) -> bool {
    let text = String::from_utf8_lossy(document);
    let odd = ["=\"\"", "xmlns:xml", "xmlns:a:b"];
    text.matches("<?").count()
        > usize::from(text.trim_start_matches('\u{feff}').starts_with("<?xml "))
        || odd.iter().any(|odd| text.contains(odd))
}

/// One mutant of a valid message.
pub fn mutate(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut text = String::from_utf8(sample.to_vec()).unwrap();
    if random.chance(3) {
        text = text.replacen(" xmlns=", &format!("{INSTANCE} xmlns="), 1);
    }
    let rounds = [0, 1, 1, 1, 1, 2, 3][random.below(7)];
    for _ in 0..rounds {
        text = step(text, random);
    }
    encode(text, random)
}

/// Some mutants in the other supported encodings.
fn encode(text: String, random: &mut Random) -> Vec<u8> {
    if !random.chance(25) {
        return text.into_bytes();
    }
    let Some((_, body)) = text.split_once("?>").filter(|_| text.starts_with("<?xml ")) else {
        return text.into_bytes();
    };
    if !body
        .chars()
        .all(|c| (c as u32) < 0x80 || (0xA0..0x100).contains(&(c as u32)))
    {
        return text.into_bytes();
    }
    let name = *random.pick(&["ISO-8859-1", "iso-8859-1", "windows-1252", "latin1"]);
    let mut bytes = format!("<?xml version=\"1.0\" encoding=\"{name}\"?>").into_bytes();
    bytes.extend(body.chars().map(|c| u8::try_from(c as u32).unwrap()));
    bytes
}

fn step(text: String, random: &mut Random) -> String {
    match random.below(16) {
        0 => lines(&text, random, |lines, at, _| drop(lines.remove(at))),
        1 => lines(&text, random, |lines, at, _| {
            lines.insert(at, lines[at].clone())
        }),
        2 => lines(&text, random, |lines, at, random| {
            let other = (at + 1 + random.below(3)).min(lines.len() - 1);
            lines.swap(at, other);
        }),
        3 => block(&text, random, |lines, from, to, _| {
            drop(lines.drain(from..=to))
        }),
        4 => block(&text, random, |lines, from, to, random| {
            let copy: Vec<String> = lines[from..=to].to_vec();
            for _ in 0..[1, 1, 2, 8, 9, 10][random.below(6)] {
                lines.splice(from..from, copy.clone());
            }
        }),
        5..=8 => value(&text, random),
        9 => rename(&text, random),
        10 => attribute(&text, random),
        11 | 12 => insert(&text, random),
        13 => prolog(&text, random),
        14 => prefix(&text, random),
        _ => damage(text, random),
    }
}

fn lines(
    text: &str,
    random: &mut Random,
    change: impl Fn(&mut Vec<String>, usize, &mut Random),
) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() > 3 {
        let at = 2 + random.below(lines.len() - 3);
        change(&mut lines, at, random);
    }
    lines.join("\n")
}

/// A whole element over several lines, found by its indentation.
fn block(
    text: &str,
    random: &mut Random,
    change: impl Fn(&mut Vec<String>, usize, usize, &mut Random),
) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let depth = |line: &String| line.len() - line.trim_start().len();
    let starts: Vec<usize> = (2..lines.len())
        .filter(|at| lines[*at].trim_start().starts_with('<') && !lines[*at].contains("</"))
        .collect();
    if !starts.is_empty() {
        let from = *random.pick(&starts);
        let to = (from + 1..lines.len()).find(|at| depth(&lines[*at]) == depth(&lines[from]));
        if let Some(to) = to {
            change(&mut lines, from, to, random);
        }
    }
    lines.join("\n")
}

/// Byte ranges of the values of leaves.
fn leaves(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("</") {
        if let Some(open) = text[..at].rfind('>')
            && !text[open + 1..at].contains('\n')
        {
            found.push((open + 1, at));
        }
    }
    found
}

fn value(text: &str, random: &mut Random) -> String {
    let leaves = leaves(text);
    if leaves.is_empty() {
        return text.to_owned();
    }
    let (from, to) = *random.pick(&leaves);
    let old = &text[from..to];
    let new = match random.below(10) {
        0 => format!("{old}{old}"),
        1 => format!(" {old}"),
        2 => format!("{old}\n"),
        3 => old.chars().skip(1).collect(),
        4 => format!("{old}{}", "x".repeat(random.below(90))),
        5 => "é".repeat([1, 6, 7, 10, 35, 36, 40, 41, 200, 512, 513][random.below(11)]),
        6 => format!("<![CDATA[{old}]]>"),
        _ => (*random.pick(VALUES)).to_owned(),
    };
    format!("{}{new}{}", &text[..from], &text[to..])
}

/// Places of start tags: behind the name.
fn tags(text: &str) -> Vec<(usize, usize)> {
    text.match_indices('<')
        .filter_map(|(at, _)| {
            let rest = &text[at + 1..];
            let length = rest.find([' ', '>', '/', '\n'])?;
            (length > 0 && !rest.starts_with(['!', '?', '/'])).then_some((at + 1, at + 1 + length))
        })
        .collect()
}

fn rename(text: &str, random: &mut Random) -> String {
    let tags = tags(text);
    if tags.is_empty() {
        return text.to_owned();
    }
    let (from, to) = *random.pick(&tags);
    let (old, new) = (text[from..to].to_owned(), *random.pick(NAMES));
    let mut changed = format!("{}{new}{}", &text[..from], &text[to..]);
    if !random.chance(4)
        && let Some(end) = changed[from..].find(&format!("</{old}>"))
    {
        let end = from + end + 2;
        changed.replace_range(end..end + old.len(), new);
    }
    changed
}

fn attribute(text: &str, random: &mut Random) -> String {
    let tags = tags(text);
    if tags.is_empty() {
        return text.to_owned();
    }
    let (_, to) = *random.pick(&tags);
    format!("{}{}{}", &text[..to], random.pick(ATTRIBUTES), &text[to..])
}

fn insert(text: &str, random: &mut Random) -> String {
    let places: Vec<usize> = text
        .match_indices(['<', '>'])
        .map(|(at, c)| at + usize::from(c == ">"))
        .collect();
    let at = if places.is_empty() {
        0
    } else {
        *random.pick(&places)
    };
    format!("{}{}{}", &text[..at], random.pick(INSERTS), &text[at..])
}

fn prolog(text: &str, random: &mut Random) -> String {
    if random.chance(3) {
        return format!("{text}{}", random.pick(EPILOGS));
    }
    let body = text
        .split_once("?>")
        .map_or(text, |(_, body)| body)
        .trim_start();
    format!("{}{body}", random.pick(PROLOGS))
}

/// All elements, or one, with a prefix instead of the default namespace.
fn prefix(text: &str, random: &mut Random) -> String {
    match random.below(4) {
        0 => {
            let text = text.replace("xmlns=", "xmlns:s=").replace("</", "</s:");
            let mut out = String::new();
            for (at, c) in text.char_indices() {
                out.push(c);
                if c == '<' && text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
                    out.push_str("s:");
                }
            }
            out
        }
        1 => text.replacen("/2017\"", "/2018\"", 1),
        2 => text.replacen("/2017\"", "/201&#55;\"", 1),
        _ => text.replacen("xmlns=", "xmlns:s=", 1),
    }
}

fn damage(mut text: String, random: &mut Random) -> String {
    let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    if boundaries.is_empty() {
        return text;
    }
    let at = *random.pick(&boundaries);
    match random.below(5) {
        0 => text.truncate(at),
        1 => drop(text.remove(at)),
        2 => text.insert(
            at,
            *random.pick(&[
                '<', '>', '&', '"', '\'', '/', '=', ';', '\u{1}', 'x', ' ', '\t', '\r', ']', '-',
                '?', '!',
            ]),
        ),
        3 => {
            let c = text.remove(at);
            text.insert(at, c.to_ascii_uppercase());
        }
        _ => {
            text = text.replacen(
                '\n',
                *random.pick(&["\r\n", "\r", "", "\n\n"]),
                1 + random.below(400),
            )
        }
    }
    text
}
