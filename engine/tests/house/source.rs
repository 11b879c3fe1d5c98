//! A source file as the rules of the house see it: its code without comments and strings, its
//! comments without code, and the paths that it uses. Lines and columns are preserved, so that a
//! finding has its line.
//!
//! It is a lexer, not a parser: it knows comments, strings, characters and braces, and the form of
//! `use` trees. It does not know macros: code that one expands to is not seen.

use std::path::{Path, PathBuf};

/// One file.
pub struct Source {
    /// Its path from the root of the workspace.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// Comments and quoted text are blanks.
    pub code: String,
    /// Everything except comments is blanks.
    pub comments: String,
}

/// A path that the code names, such as `crate::format::wal::sector_up`, as its words.
pub struct Used {
    pub line: usize,
    pub words: Vec<String>,
    /// Whether it is re-exported: `pub use`.
    pub public: bool,
}

/// A function and how long it is.
pub struct Function {
    pub line: usize,
    pub name: String,
    pub lines: usize,
}

impl Source {
    pub fn read(root: &Path, path: PathBuf) -> Source {
        let text = std::fs::read_to_string(root.join(&path)).expect("a source file can be read");
        Source::new(path, text)
    }

    pub fn new(path: PathBuf, text: String) -> Source {
        let (code, comments) = split(&text);
        Source { path, text, code, comments }
    }

    /// The line of a position in the text.
    pub fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// How many lines precede the file's own tests.
    pub fn production_lines(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let is_tests = |at: &usize| {
            matches!(lines[*at].trim(), "#[cfg(test)]" | "#[cfg(all(test, loom))]")
                && lines.get(at + 1).is_some_and(|next| next.trim_start().starts_with("mod "))
        };
        (0..lines.len()).find(is_tests).unwrap_or(lines.len())
    }

    /// The code before the file's own tests.
    pub fn production(&self) -> &str {
        let lines = self.production_lines();
        let end: usize = self.code.split_inclusive('\n').take(lines).map(str::len).sum();
        &self.code[..end]
    }

    /// The paths in the production part that start with one of `roots`.
    pub fn paths(&self, roots: &[&str]) -> Vec<Used> {
        let code = self.production();
        let words = words(code);
        let mut used = Vec::new();
        for (index, (at, word)) in words.iter().enumerate() {
            let before = code[..*at].trim_end();
            if !roots.contains(word)
                || before.ends_with("::")
                || !code[at + word.len()..].starts_with("::")
            {
                continue;
            }
            let previous = |back: usize| index.checked_sub(back).map(|index| words[index].1);
            let public = previous(1) == Some("use")
                && matches!(previous(2), Some("pub" | "crate" | "super"));
            let mut paths = Vec::new();
            expand(code, *at, &mut Vec::new(), &mut paths);
            let line = self.line_of(*at);
            used.extend(paths.into_iter().map(|words| Used { line, words, public }));
        }
        used
    }

    /// All functions with a body.
    pub fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let words = words(&self.code);
        let mut functions = Vec::new();
        for pair in words.windows(2) {
            let [(at, "fn"), (named, name)] = pair else { continue };
            // The type of a function has no name: its parentheses do not follow one.
            if !self.code[at + "fn".len()..*named].trim().is_empty() {
                continue;
            }
            if let Some(end) = body_end(code, named + name.len()) {
                let lines = self.line_of(end) - self.line_of(*at) + 1;
                functions.push(Function {
                    line: self.line_of(*at),
                    name: (*name).to_owned(),
                    lines,
                });
            }
        }
        functions
    }

    /// The names that the file declares: modules, types, functions, constants. With their
    /// positions.
    pub fn declared(&self) -> Vec<(usize, String)> {
        const KINDS: &[&str] = &[
            "mod",
            "struct",
            "enum",
            "union",
            "trait",
            "type",
            "fn",
            "const",
            "static",
            "macro_rules",
        ];
        let words = words(&self.code);
        let pairs = words.windows(2).filter(|pair| KINDS.contains(&pair[0].1));
        pairs.map(|pair| (self.line_of(pair[1].0), pair[1].1.to_owned())).collect()
    }

    /// The types that the file declares, with their lines: structs, enums, unions, traits and
    /// aliases, also those in its tests and in functions, but no associated types.
    pub fn types(&self) -> Vec<(usize, String)> {
        const KINDS: &[&str] = &["struct", "enum", "union", "trait", "type"];
        let mut types = Vec::new();
        // For each block that is open, whether it is that of an `impl` or a trait.
        let (mut blocks, mut round, mut head, mut at) = (vec![false], 0i32, 0, 0);
        let words = words(&self.code);
        for (position, [(start, kind), (named, name)]) in
            words.array_windows().map(|pair| (pair[0].0, pair))
        {
            for (index, byte) in self.code.bytes().enumerate().take(position).skip(at) {
                match byte {
                    b'(' | b'[' => round += 1,
                    b')' | b']' => round -= 1,
                    b'{' => blocks.push(opens_items(&self.code[head..index])),
                    b'}' => drop(blocks.pop()),
                    _ => {}
                }
                if matches!(byte, b'{' | b'}') || byte == b';' && round == 0 {
                    head = index + 1;
                }
            }
            at = position;
            // `r#type` is no keyword, and `a.union(b)` no declaration.
            let is_declaration = KINDS.contains(kind)
                && !self.code[..*start].ends_with('#')
                && self.code[start + kind.len()..*named].trim().is_empty();
            if is_declaration && !(*kind == "type" && blocks.last() == Some(&true)) {
                types.push((self.line_of(*named), (*name).to_owned()));
            }
        }
        types
    }
}

/// Whether a block that follows this text is that of an `impl` or a trait: its first keyword says
/// so, since a later `impl` is that of a parameter or a result.
fn opens_items(head: &str) -> bool {
    let mut words = words(head).into_iter().map(|(_, word)| word);
    words.find(|word| ["fn", "impl", "trait"].contains(word)).is_some_and(|word| word != "fn")
}

/// The identifiers and keywords of some code, with their positions.
pub fn words(code: &str) -> Vec<(usize, &str)> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_part) {
        let tail = &rest[start..];
        let len = tail.find(|char| !is_part(char)).unwrap_or(tail.len());
        words.push((code.len() - tail.len(), &tail[..len]));
        rest = &tail[len..];
    }
    words
}

/// Follows a path from `at`, through braces too, and collects its names. Returns where it ends.
fn expand(
    code: &str,
    mut at: usize,
    before: &mut Vec<String>,
    out: &mut Vec<Vec<String>>,
) -> usize {
    let depth = before.len();
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if code[at..].starts_with('{') {
            at += 1;
            while !code[at..].trim_start().starts_with('}') && at < code.len() {
                at = expand(code, at, before, out);
                at += code[at..].find([',', '}']).map_or(code.len() - at, |stop| stop);
                at += usize::from(code[at..].starts_with(','));
            }
            before.truncate(depth);
            return at + code[at..].find('}').map_or(0, |end| end + 1);
        }
        let Some((0, word)) = words(&code[at..]).first().copied() else { break };
        before.push(word.to_owned());
        at += word.len();
        let Some(behind) = code[at..].trim_start().strip_prefix("::") else { break };
        at = code.len() - behind.len();
    }
    out.push(before.clone());
    before.truncate(depth);
    at
}

/// Where the body of a function ends whose parameters start at or after `at`; none for a
/// declaration without one.
fn body_end(code: &[u8], at: usize) -> Option<usize> {
    let (mut round, mut braces) = (0i32, 0i32);
    for (index, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b';' if round == 0 && braces == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && round == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The code and the comments, each with blanks in place of the other.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut comments = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (len, kind) = piece(bytes, at);
        for byte in &bytes[at..at + len] {
            let blank = if *byte == b'\n' { b'\n' } else { b' ' };
            code.push(if kind == Kind::Code { *byte } else { blank });
            comments.push(if kind == Kind::Comment { *byte } else { blank });
        }
        at += len;
    }
    let text = |bytes| String::from_utf8(bytes).expect("pieces end where characters end");
    (text(code), text(comments))
}

#[derive(PartialEq, Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Quoted,
}

/// The length and kind of the piece that starts at `at`.
fn piece(bytes: &[u8], at: usize) -> (usize, Kind) {
    let rest = &bytes[at..];
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let inside_word = at > 0 && is_part(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), Kind::Comment);
    }
    if rest.starts_with(b"/*") {
        return (block_comment(rest), Kind::Comment);
    }
    if rest[0] == b'"' {
        return (quoted(rest), Kind::Quoted);
    }
    let hashes = rest.iter().skip(1).take_while(|byte| **byte == b'#').count();
    let after_prefix = at > 0 && bytes[at - 1] == b'b';
    if rest[0] == b'r' && rest.get(1 + hashes) == Some(&b'"') && (!inside_word || after_prefix) {
        let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        let body = 2 + hashes;
        let found = rest[body..].windows(end.len()).position(|window| window == end);
        return (found.map_or(rest.len(), |found| body + found + end.len()), Kind::Quoted);
    }
    if rest[0] == b'\'' {
        // A lifetime has no closing quote after its first character.
        let char_len = if rest.get(1) == Some(&b'\\') {
            rest.iter().skip(3).position(|byte| *byte == b'\'').map(|end| end + 4)
        } else {
            let len = rest.get(1).map_or(1, |first| utf8_len(*first));
            (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
        };
        return char_len.map_or((1, Kind::Code), |len| (len, Kind::Quoted));
    }
    let word = rest.iter().take_while(|byte| is_part(**byte)).count();
    (if rest[0] == b'r' && !inside_word || rest[0] == b'b' { 1 } else { word.max(1) }, Kind::Code)
}

fn utf8_len(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}
