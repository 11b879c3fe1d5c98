//! Keeps the command tables of docs/protocol.md equal to the table of commands.

use std::path::Path;

const BEGIN: &str = "<!-- commands: begin -->\n";
const END: &str = "<!-- commands: end -->\n";

#[test]
#[allow(clippy::disallowed_methods, reason = "the test reads and blesses a file of the repository")]
fn the_tables_of_the_protocol_document_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let text = std::fs::read_to_string(&path).expect("the document is there");
    let (head, rest) = text.split_once(BEGIN).expect("the tables begin");
    let (tables, tail) = rest.split_once(END).expect("the tables end");
    let rendered = format!("\n{}", strandline_server::render_tables());
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, [head, BEGIN, &rendered, END, tail].concat())
            .expect("the document is written");
    } else {
        assert!(
            tables == rendered,
            "docs/protocol.md is not up to date: run this test with STRANDLINE_BLESS=1"
        );
    }
}
