//! The rules of the house, as a test: layering that is only intended fails sooner or later.
//!
//! The rules, whose findings are reported all at once, each with its file and line:
//!
//! * floors: a file of the engine uses lower floors only; stores never use each other; there are no
//!   cycles;
//! * absences: dependencies that a room must not have (the server's protocol knows no engine, its
//!   messaging no sockets);
//! * every file states its purpose in a heading; files, functions and lines stay short; nothing is
//!   left unfinished;
//! * one word for one thing: no identifier has a name that the glossary refuses, and each type name
//!   exists once in a crate;
//! * links and paths in documents lead somewhere.
//!
//! The last tests plant violations, so that a rule that detects nothing is noticed too.
#![allow(clippy::disallowed_methods, reason = "a test of the sources reads them")]

mod rules;
mod source;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rules::{
    ABSENCES, FLOORS, MOST_COLUMNS, MOST_FUNCTION_LINES, MOST_LINES, REFUSED_WORDS, STORES,
};
use source::{Source, words};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the engine is a member of the workspace")
        .into()
}

/// The files of the workspace with this ending, as paths from its root, without built and
/// downloaded ones.
fn files(ending: &str) -> Vec<PathBuf> {
    const NOT_OURS: &[&str] = &["target", "node_modules", ".git", ".venv", "corpus", "artifacts"];
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().expect("a file has a type").is_dir();
            let is_ours =
                path.file_name().is_some_and(|name| NOT_OURS.iter().all(|other| name != *other));
            if is_folder && is_ours && !root.join(&path).join("CACHEDIR.TAG").exists() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    files("rs").into_iter().map(|path| Source::read(&root(), path)).collect()
}

/// Fails with all findings.
fn report(mut findings: Vec<String>) {
    findings.sort();
    findings.dedup();
    assert!(findings.is_empty(), "{} violations\n{}", findings.len(), findings.join("\n"));
}

fn at(source: &Source, line: usize, what: impl std::fmt::Display) -> String {
    format!("{}:{line}: {what}", source.path.display())
}

/// The parts of a file's path inside a crate's `src`; none for other files.
fn inside<'a>(source: &'a Source, folder: &str) -> Option<Vec<&'a str>> {
    let path = source.path.strip_prefix(folder).ok()?.to_str()?.strip_suffix(".rs")?;
    Some(path.split('/').collect())
}

/// The room of a file: the first part of its path.
fn room<'a>(source: &'a Source, folder: &str) -> Option<&'a str> {
    inside(source, folder).map(|parts| parts[0])
}

/// The rooms that a file uses, with lines. Items of the crate's root belong to `lib`.
fn rooms_used(source: &Source, rooms: &BTreeSet<&str>) -> Vec<(usize, String)> {
    let paths = source.paths(&["crate"]).into_iter();
    let named = paths.filter_map(|used| Some((used.line, used.words.get(1)?.clone())));
    named
        .map(|(line, word)| (line, if rooms.contains(word.as_str()) { word } else { "lib".into() }))
        .collect()
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, rooms)| rooms.contains(&room))
}

fn floor_findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let rooms: BTreeSet<&str> =
        sources.iter().filter_map(|source| room(source, "engine/src")).collect();
    for source in sources {
        let Some(own) = room(source, "engine/src") else { continue };
        let Some(floor) = floor_of(own) else {
            findings.push(at(source, 1, format!("`{own}` has no floor: give it one in FLOORS")));
            continue;
        };
        for (line, other) in rooms_used(source, &rooms) {
            let Some(below) = floor_of(&other).filter(|_| other != own) else { continue };
            if below > floor {
                let (upper, lower) = (FLOORS[below].0, FLOORS[floor].0);
                findings.push(at(
                    source,
                    line,
                    format!("`{own}` ({lower}) uses `{other}` above it ({upper})"),
                ));
            } else if below == floor && FLOORS[floor].0 == STORES {
                findings.push(at(
                    source,
                    line,
                    format!("the store `{own}` uses the store `{other}`"),
                ));
            }
        }
        let in_room = inside(source, "engine/src").is_some_and(|parts| parts.len() > 1);
        for used in source.paths(&["super"]) {
            if !in_room || used.words.get(1).is_some_and(|word| word == "super") {
                findings.push(at(source, used.line, "leaves its room by `super`: say `crate`"));
            }
        }
    }
    findings
}

/// Which node uses which, with the position of the first use.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The rooms of a crate.
fn room_graph(sources: &[Source], folder: &str) -> Graph {
    let rooms: BTreeSet<&str> = sources.iter().filter_map(|source| room(source, folder)).collect();
    let mut graph = Graph::new();
    for source in sources {
        let Some(own) = room(source, folder).filter(|own| *own != "main") else { continue };
        for (line, other) in
            rooms_used(source, &rooms).into_iter().filter(|(_, other)| other != own)
        {
            graph
                .entry(own.into())
                .or_default()
                .entry(other)
                .or_insert_with(|| at(source, line, ""));
        }
    }
    graph
}

/// The files and folders inside each folder of a crate, at any depth. Items in a folder's `mod.rs`
/// belong to the folder; items that it re-exports belong to the file that they come from.
fn file_graph(sources: &[Source], folder: &str) -> Graph {
    let modules: BTreeSet<Vec<&str>> =
        sources.iter().filter_map(|source| inside(source, folder)).collect();
    let is_child = |parent: &[&str], name: &str| {
        modules
            .iter()
            .any(|module| module.starts_with(parent) && module.get(parent.len()) == Some(&name))
    };
    let door = |parent: &[&str]| {
        let path = [parent, &["mod"]].concat();
        sources.iter().find(|file| inside(file, folder).is_some_and(|parts| parts == path))
    };
    let mut graph = Graph::new();
    for source in sources {
        let Some(parts) = inside(source, folder) else { continue };
        for used in source.paths(&["crate", "super"]) {
            let words = absolute(&parts, &used.words);
            for depth in 1..parts.len() {
                let (parent, own) = (&parts[..depth], parts[depth]);
                let same = words.len() > depth
                    && words.iter().zip(parent).all(|(word, part)| word == part);
                if !same || own == "mod" {
                    break;
                }
                let word = words[depth].as_str();
                let given_on = door(parent).map(given_on).unwrap_or_default();
                let other = if is_child(parent, word) {
                    Some(word)
                } else {
                    given_on.get(word).map(String::as_str)
                };
                if let Some(other) = other.filter(|other| *other != own) {
                    let parent = parent.join("/");
                    let (from, to) = (format!("{parent}/{own}"), format!("{parent}/{other}"));
                    graph
                        .entry(from)
                        .or_default()
                        .entry(to)
                        .or_insert_with(|| at(source, used.line, ""));
                }
            }
        }
    }
    graph
}

/// A path from the crate's root, given the file in which it is used.
fn absolute(parts: &[&str], words: &[String]) -> Vec<String> {
    let module = parts.iter().filter(|part| **part != "mod");
    let mut module: Vec<String> = module.map(|part| (*part).to_owned()).collect();
    if words[0] == "crate" {
        return words[1..].to_vec();
    }
    let ups = words.iter().take_while(|word| *word == "super").count();
    module.truncate(module.len().saturating_sub(ups));
    module.extend_from_slice(&words[ups..]);
    module
}

/// Rooms that have a floor and no file, and files that no `mod` declares.
fn module_findings(sources: &[Source], folder: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let Some(parts) = inside(source, folder) else { continue };
        let is_root = parts.len() == 1 && ["lib", "main"].contains(&parts[0]);
        let own: Vec<&str> = parts.iter().copied().filter(|part| *part != "mod").collect();
        let Some((name, parent)) = own.split_last().filter(|_| !is_root) else { continue };
        let doors = [[parent, &["mod"]].concat(), parent.to_vec(), vec!["lib"], vec!["main"]];
        let doors = if parent.is_empty() { &doors[2..] } else { &doors[..2] };
        let is_declared = sources.iter().any(|door| {
            inside(door, folder).is_some_and(|parts| doors.contains(&parts))
                && words(&door.code).windows(2).any(|pair| pair[0].1 == "mod" && pair[1].1 == *name)
        });
        if !is_declared {
            findings.push(at(source, 1, "no `mod` declares this file: nothing compiles it"));
        }
    }
    findings
}

fn absent_rooms(sources: &[Source]) -> Vec<String> {
    let rooms: BTreeSet<&str> =
        sources.iter().filter_map(|source| room(source, "engine/src")).collect();
    let listed = FLOORS.iter().flat_map(|(_, rooms)| rooms.iter());
    let absent = listed.filter(|room| !rooms.contains(*room));
    absent.map(|room| format!("`{room}` has a floor and no file: take it out of FLOORS")).collect()
}

/// The re-exports of a `mod.rs`: `pub use reader::Tail` makes `Tail` the reader's.
fn given_on(door: &Source) -> BTreeMap<String, String> {
    let children: Vec<String> = words(door.production())
        .windows(2)
        .filter(|pair| pair[0].1 == "mod")
        .map(|pair| pair[1].1.to_owned())
        .collect();
    let roots: Vec<&str> = children.iter().map(String::as_str).collect();
    let public = door.paths(&roots).into_iter().filter(|used| used.public);
    public
        .filter_map(|used| Some((used.words.last()?.clone(), used.words.first()?.clone())))
        .collect()
}

fn cycle_findings(graph: &Graph) -> Vec<String> {
    let reaches = |from: &String, to: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(node) = next.pop() {
            if node == to {
                return true;
            }
            if seen.insert(node) {
                next.extend(graph.get(node).into_iter().flat_map(BTreeMap::keys));
            }
        }
        false
    };
    let edges =
        graph.iter().flat_map(|(from, used)| used.iter().map(move |(to, line)| (from, to, line)));
    edges
        .filter(|(from, to, _)| reaches(to, from))
        .map(|(from, to, line)| format!("{line}`{from}` uses `{to}`, which uses `{from}` again"))
        .collect()
}

fn absence_findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for (folder, absent, why) in ABSENCES {
        let file = format!("{folder}.rs");
        let ours =
            |source: &&Source| source.path.starts_with(folder) || source.path == Path::new(&file);
        for source in sources.iter().filter(ours) {
            let code = source.production();
            for (position, word) in words(code) {
                let is_path = code[position + word.len()..].starts_with("::");
                // Below the root a path has a `::` before the word; a declaration has none after
                // it.
                let is_root =
                    !code[..position].ends_with("::") || code[..position].ends_with("crate::");
                if absent.contains(&word) && is_path && is_root {
                    findings.push(at(
                        source,
                        source.line_of(position),
                        format!("knows `{word}`: {why}"),
                    ));
                }
            }
            for used in source.paths(&["crate"]) {
                if let Some(word) = used.words.get(1).filter(|word| absent.contains(&word.as_str()))
                {
                    findings.push(at(source, used.line, format!("knows `{word}`: {why}")));
                }
            }
        }
    }
    findings
}

fn shape_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    if !source.text.starts_with("//! ") {
        findings.push(at(source, 1, "has no heading: say in `//!` what the file is for"));
    }
    let is_product = source.path.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
    if is_product && source.production_lines() > MOST_LINES {
        let lines = source.production_lines();
        findings.push(at(
            source,
            MOST_LINES + 1,
            format!("{lines} lines before its tests, over {MOST_LINES}"),
        ));
    }
    for function in source.functions() {
        if function.lines > MOST_FUNCTION_LINES {
            let what = format!(
                "`{}` has {} lines, over {MOST_FUNCTION_LINES}",
                function.name, function.lines
            );
            findings.push(at(source, function.line, what));
        }
    }
    let promises = ["TODO", "FIXME", "XXX"];
    for (position, word) in
        words(&source.comments).into_iter().filter(|(_, word)| promises.contains(word))
    {
        findings.push(at(
            source,
            source.line_of(position),
            format!("{word}: finish it, or say why it is so"),
        ));
    }
    for (position, word) in words(&source.code) {
        let is_macro = source.code[position + word.len()..].starts_with('!');
        if is_macro && ["dbg", "todo", "unimplemented"].contains(&word) {
            findings.push(at(source, source.line_of(position), format!("`{word}!` is left in")));
        }
    }
    findings
}

/// The lines that are too long. rustfmt breaks code, but neither comments nor quoted text.
fn width_findings(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let widths = lines.map(|(index, line)| (index + 1, line.chars().count()));
    let too_wide = widths.filter(|(_, columns)| *columns > MOST_COLUMNS);
    too_wide
        .map(|(line, columns)| {
            at(source, line, format!("{columns} columns, over {MOST_COLUMNS}: break the line"))
        })
        .collect()
}

/// The words of a name: `SegmentSet` and `segment_set` both give segment and set.
fn words_of_name(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for char in name.chars() {
        if char == '_' || char.is_uppercase() {
            words.push(String::new());
        }
        if char != '_' {
            words.last_mut().expect("it starts with one").extend(char.to_lowercase());
        }
    }
    words
}

fn name_findings(source: &Source) -> Vec<String> {
    let stem =
        source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let named = source.declared().into_iter().chain([(1, stem)]);
    let mut findings = Vec::new();
    for (line, name) in named {
        // `FIRST_BLOCK` is not a list of single letters.
        let parts = words_of_name(if name.to_uppercase() == name { "" } else { &name });
        let upper: Vec<String> = name.split('_').map(str::to_lowercase).collect();
        if let Some(word) =
            parts.iter().chain(&upper).find(|word| REFUSED_WORDS.contains(&word.as_str()))
        {
            findings.push(at(
                source,
                line,
                format!("`{name}` says {word}: docs/glossary.md has the word"),
            ));
        }
    }
    findings
}

/// The crate of a file in a `src`, as the path of its sources: each binary in `bin` is one. None
/// for other files.
fn crate_of(source: &Source) -> Option<PathBuf> {
    let mut parts = source.path.components();
    let mut folder: PathBuf = parts.by_ref().take(2).collect();
    if !folder.ends_with("src") {
        return None;
    }
    if parts.next().is_some_and(|part| part.as_os_str() == "bin") {
        folder.push("bin");
        folder.push(parts.next()?);
    }
    Some(folder)
}

/// The types whose name another type of the same crate has.
fn type_findings(sources: &[Source]) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut findings = Vec::new();
    for source in sources {
        let Some(own) = crate_of(source) else { continue };
        for (line, name) in source.types() {
            let place = format!("{}:{line}", source.path.display());
            match first.entry((own.clone(), name.clone())) {
                Entry::Vacant(vacant) => drop(vacant.insert(place)),
                Entry::Occupied(other) => {
                    let what = format!("second type `{name}`; the first: {}", other.get());
                    findings.push(at(source, line, what));
                }
            }
        }
    }
    findings
}

/// Links of a document, and paths in back quotes, with lines.
fn links(text: &str) -> Vec<(usize, String, bool)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (line, content) in (1..).zip(text.lines()) {
        fenced ^= content.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let targets = content.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let is_ours =
            |target: &&str| !target.contains("://") && !target.starts_with(['#', '<', 'm']);
        links.extend(targets.filter(is_ours).map(|target| (line, target.to_owned(), false)));
        let quoted = content.split('`').skip(1).step_by(2);
        let folders = ["engine/", "server/", "benches/", "fuzz/", "docs/"];
        let is_path = |text: &&str| {
            folders.iter().any(|folder| text.starts_with(folder))
                && !text.contains([' ', '*', '<', '{', '…'])
        };
        links.extend(quoted.filter(is_path).map(|path| (line, path.to_owned(), true)));
    }
    links
}

fn link_findings(document: &Path, text: &str) -> Vec<String> {
    let folder = root().join(document.parent().unwrap_or(Path::new("")));
    let leads_nowhere = |target: &str, from_root: bool| {
        let path = target.split(['#', ':']).next().unwrap_or_default();
        let base = if from_root { root() } else { folder.clone() };
        !path.is_empty() && !base.join(path).exists()
    };
    links(text)
        .into_iter()
        .filter(|(_, target, from_root)| leads_nowhere(target, *from_root))
        .map(|(line, target, _)| format!("{}:{line}: {target} is not there", document.display()))
        .collect()
}

/// Documents that comments refer to.
fn comment_findings(source: &Source) -> Vec<String> {
    let words = source.comments.split(|char: char| char.is_whitespace() || "()`,;:".contains(char));
    let documents = words.map(|word| word.trim_end_matches('.')).filter(|word| {
        word.starts_with("docs/")
            && Path::new(word).extension().is_some_and(|ending| ending == "md")
    });
    documents
        .filter(|document| !root().join(document).exists())
        .map(|document| {
            at(source, 1, format!("a comment speaks of {document}, which is not there"))
        })
        .collect()
}

#[test]
fn each_file_uses_lower_floors_only_and_stores_do_not_use_each_other() {
    report(floor_findings(&sources()));
}

#[test]
fn each_room_has_files_and_each_file_is_compiled() {
    let sources = sources();
    let mut findings = absent_rooms(&sources);
    findings.extend(
        ["engine/src", "server/src"].iter().flat_map(|folder| module_findings(&sources, folder)),
    );
    report(findings);
}

#[test]
fn dependencies_have_no_cycles() {
    let sources = sources();
    let mut findings = Vec::new();
    for folder in ["engine/src", "server/src"] {
        findings.extend(cycle_findings(&room_graph(&sources, folder)));
        findings.extend(cycle_findings(&file_graph(&sources, folder)));
    }
    report(findings);
}

#[test]
fn rooms_do_not_know_what_they_must_not() {
    report(absence_findings(&sources()));
}

#[test]
fn files_have_headings_and_are_short_and_finished() {
    report(sources().iter().flat_map(shape_findings).collect());
}

#[test]
fn lines_fit_in_the_columns() {
    report(sources().iter().flat_map(width_findings).collect());
}

#[test]
fn no_identifier_has_a_refused_name() {
    report(sources().iter().flat_map(name_findings).collect());
}

#[test]
fn each_type_name_exists_once_in_a_crate() {
    report(type_findings(&sources()));
}

#[test]
fn links_and_paths_resolve() {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(root().join(path)).expect("a document can be read")
    };
    let documents = files("md");
    let mut findings: Vec<String> =
        documents.iter().flat_map(|document| link_findings(document, &read(document))).collect();
    findings.extend(sources().iter().flat_map(comment_findings));
    report(findings);
}

fn planted(path: &str, text: &str) -> Source {
    Source::new(path.into(), text.into())
}

#[test]
fn planted_uses_are_found() {
    let sources = [
        planted(
            "engine/src/wal/mod.rs",
            "//! w\npub use reader::Tail;\nmod reader;\nmod writer;\n",
        ),
        planted("engine/src/wal/reader.rs", "//! r\nuse super::writer::Wal;\n"),
        planted(
            "engine/src/wal/writer.rs",
            "//! w\nuse super::Tail;\nuse crate::{ids, memtable::{self, Memtable}};\n",
        ),
        planted(
            "engine/src/memtable.rs",
            "//! m\n// use crate::read;\nfn f() { crate::write::g(\"'\") }\n",
        ),
        planted(
            "engine/src/write/commit.rs",
            "//! a\nuse crate::write::batch::Batch;\n\
             #[cfg(test)]\nmod tests { use crate::engine; }\n",
        ),
        planted(
            "engine/src/engine.rs",
            "//! e\n#[cfg(all(test, loom))]\nmod modelled { use super::*; }\n",
        ),
        planted("engine/src/write/batch/mod.rs", "//! b\nuse super::commit::Committer;\n"),
        planted("engine/src/ids.rs", "//! i\n"),
        planted("engine/src/attic.rs", "//! a\n"),
        planted("server/src/protocol/mod.rs", "//! p\nuse strandline::Engine;\n"),
        planted(
            "server/src/messaging.rs",
            "//! m\nuse crate::{protocol::Encoder, key};\nuse tokio::time;\n",
        ),
    ];
    assert_eq!(
        floor_findings(&sources),
        [
            "engine/src/wal/writer.rs:3: the store `wal` uses the store `memtable`",
            "engine/src/wal/writer.rs:3: the store `wal` uses the store `memtable`",
            "engine/src/memtable.rs:3: `memtable` (stores) uses `write` above it (writing)",
            "engine/src/attic.rs:1: `attic` has no floor: give it one in FLOORS",
        ]
    );
    assert_eq!(cycle_findings(&file_graph(&sources, "engine/src")).len(), 4);
    let undeclared = module_findings(&sources, "engine/src");
    assert!(undeclared.iter().any(|finding| finding.starts_with("engine/src/attic.rs:1")));
    assert!(undeclared.iter().all(|finding| !finding.starts_with("engine/src/wal/reader.rs")));
    assert!(
        absent_rooms(&sources)
            .contains(&"`vfs` has a floor and no file: take it out of FLOORS".into())
    );
    assert_eq!(cycle_findings(&room_graph(&sources, "engine/src")), [""; 0]);
    let absent = absence_findings(&sources);
    let lines: Vec<&str> = absent.iter().filter_map(|finding| finding.split(": ").next()).collect();
    let messaging = ["server/src/messaging.rs:3", "server/src/messaging.rs:2"];
    assert_eq!(lines[0], "server/src/protocol/mod.rs:2");
    assert!(messaging.iter().all(|line| lines.contains(line)), "{absent:?}");
}

#[test]
fn planted_wide_lines_are_found() {
    // Each `ü` is two bytes and one column.
    let fits = format!("// {}\n", "ü".repeat(MOST_COLUMNS - 3));
    let wide = format!("// {}\n", "x".repeat(MOST_COLUMNS - 2));
    let source = planted("engine/tests/x.rs", &(fits + &wide));
    assert_eq!(
        width_findings(&source),
        [format!(
            "engine/tests/x.rs:2: {} columns, over {MOST_COLUMNS}: break the line",
            MOST_COLUMNS + 1
        )]
    );
}

#[test]
fn planted_second_types_are_found() {
    let alone = "//! a\ntrait Known {\n    type Error: From<[u8; 2]>;\n    fn r#type(&self);\n}\n\
                 impl Known for Row {\n    type Error = ();\n    fn r#type(&self) {}\n}\n\
                 impl From<[u8; 2]> for Row {\n    type Error = ();\n}\n";
    let twice = "//! b\npub(crate) struct Page;\nenum Row {}\n// struct Known;\n\
                 fn f(row: impl Fn([u8; 2])) {\n    row.union(row);\n    type Error = ();\n}\n\
                 mod tests {\n    type Known<'a> = &'a str;\n    union Page {}\n}\n";
    let sources = [
        planted("engine/src/a.rs", alone),
        planted("engine/src/a/b.rs", twice),
        planted("server/src/b.rs", "//! b\nstruct Page;\n"),
        planted("benches/src/lib.rs", "//! l\nstruct Work;\n"),
        planted("benches/src/load/mod.rs", "//! l\ntrait Work {}\n"),
        planted("benches/src/bin/load.rs", "//! l\nstruct Work;\n"),
        planted("benches/src/bin/paths/main.rs", "//! p\nstruct Work;\n"),
        planted("benches/src/bin/paths/more.rs", "//! m\nstruct Work;\n"),
        planted("engine/tests/x.rs", "//! x\nstruct Page;\nstruct Page;\n"),
    ];
    assert_eq!(
        type_findings(&sources),
        [
            "engine/src/a/b.rs:10: second type `Known`; the first: engine/src/a.rs:2",
            "engine/src/a/b.rs:11: second type `Page`; the first: engine/src/a/b.rs:2",
            "benches/src/load/mod.rs:2: second type `Work`; the first: benches/src/lib.rs:2",
            "benches/src/bin/paths/more.rs:2: second type `Work`; the first: \
             benches/src/bin/paths/main.rs:2",
        ]
    );
}

#[test]
fn planted_shapes_names_and_links_are_found() {
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(MOST_FUNCTION_LINES));
    let text = format!(
        "struct LogManager;\n// {}\nfn f() {{ {}!(\"}}\") }}\n{long}",
        "TO".to_owned() + "DO",
        "dbg"
    );
    let source = planted("engine/src/x.rs", &(text + &"\n".repeat(MOST_LINES)));
    let found = shape_findings(&source);
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(name_findings(&source).len(), 1);
    assert_eq!(name_findings(&planted("server/src/util.rs", "//! u\n")).len(), 1);
    assert_eq!(
        name_findings(&planted("a/src/b.rs", "const JOURNAL_BYTES: u8 = 0; fn f(helper: u8) {}"))
            .len(),
        1
    );
    let text = "[a](nowhere.md) [b](https://example.org) [c](#here)\n`engine/src/nowhere.rs` \
                `engine/src/lib.rs`\n";
    assert_eq!(
        link_findings(Path::new("docs/x.md"), text),
        ["docs/x.md:1: nowhere.md is not there", "docs/x.md:2: engine/src/nowhere.rs is not there"]
    );
}
