//! The spans that a subscriber gets: each span of the table, with its level and its fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strandline::metrics::SPANS;
use strandline::{Engine, NewStore, Options};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::alone;
use crate::two_stores;

/// A span that was opened, with the values of its fields.
#[derive(Clone, Debug)]
struct Opened {
    name: &'static str,
    level: Level,
    fields: Vec<&'static str>,
    values: BTreeMap<&'static str, String>,
    was_entered: bool,
}

/// Keeps the spans of the engine. There is one for the process, since spans are opened by threads
/// of the engine too.
#[derive(Clone, Default)]
struct Spans {
    opened: Arc<Mutex<BTreeMap<u64, Opened>>>,
    next: Arc<AtomicU64>,
}

struct Values<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Values<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Spans {
    fn change(&self, id: &span::Id, change: impl FnOnce(&mut Opened)) {
        let mut opened = self.opened.lock().expect("no panic");
        change(opened.get_mut(&id.into_u64()).expect("it was opened"));
    }

    fn all(&self) -> Vec<Opened> {
        self.opened.lock().expect("no panic").values().cloned().collect()
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("strandline::")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let id = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        let (metadata, mut values) = (attributes.metadata(), BTreeMap::new());
        attributes.record(&mut Values(&mut values));
        let fields = metadata.fields().iter().map(|field| field.name()).collect();
        let (name, level) = (metadata.name(), *metadata.level());
        let opened = Opened { name, level, fields, values, was_entered: false };
        self.opened.lock().expect("no panic").insert(id, opened);
        span::Id::from_u64(id)
    }

    fn record(&self, id: &span::Id, record: &span::Record<'_>) {
        self.change(id, |opened| record.record(&mut Values(&mut opened.values)));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &span::Id) {
        self.change(id, |opened| opened.was_entered = true);
    }

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_subscriber_gets_each_span_of_the_table_with_its_level_and_fields() {
    let _alone = alone();
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).expect("there is no other");
    let directory = tempfile::tempdir().expect("a directory");
    // One millisecond: what was flushed has expired when it is compacted.
    let stores = [NewStore::new("messages", None), NewStore::new("short", two_stores::ttl(1))];
    let options = Options::default().stores(stores);
    let engine = Engine::open(directory.path().join("data"), options).expect("opens");
    let (store, short) =
        (engine.store("messages").expect("is there"), engine.store("short").expect("is there"));
    for _ in 0..2 {
        store.append(b"t", b"body").expect("appends");
        short.append(b"u", b"body").expect("appends");
        engine.flush().expect("flushes");
    }
    std::thread::park_timeout(std::time::Duration::from_millis(10));
    engine.compact().expect("merges, and drops what has expired");
    engine.verify(|_, _| ()).expect("verifies");
    engine.backup(directory.path().join("backup")).expect("backs up");
    engine.close().expect("closes");

    let opened = spans.all();
    let names: BTreeSet<&str> = opened.iter().map(|span| span.name).collect();
    let listed: BTreeSet<&str> = SPANS.iter().map(|span| span.name).collect();
    assert_eq!(names, listed);
    for span in &opened {
        let info = SPANS.iter().find(|info| info.name == span.name).expect("is listed");
        assert_eq!((span.level, span.fields.as_slice()), (info.level, info.fields), "{span:?}");
        assert!(span.was_entered, "{span:?}");
    }
    for info in SPANS {
        let is_complete =
            |span: &&Opened| info.fields.iter().all(|field| span.values.contains_key(field));
        let complete = opened.iter().filter(|span| span.name == info.name).find(is_complete);
        assert!(complete.is_some(), "`{}` never has a value for each of its fields", info.name);
    }
    let backup = opened.iter().find(|span| span.name == "backup").expect("was asserted above");
    assert_eq!(backup.values["entries"], "2", "those that have not expired: {backup:?}");
}
