//! Queries that keep refused rows in view, beside those that do not.

use driftlog_core::id::{Name, WriteId};
use driftlog_core::value::Value;
use driftlog_core::view::{Query, QueryId, Refused};

use crate::device::Device;

fn all(refused: Refused) -> Query {
    Query { refused, ..Query::all(Name::new("todos").unwrap()) }
}

/// A tab with a query of either kind.
struct Watched {
    device: Device,
    tab: usize,
    hiding: QueryId,
    keeping: QueryId,
}

impl Watched {
    fn new() -> Self {
        let mut device = Device::new(1);
        let tab = device.tab();
        device.open(tab);
        let (hiding, keeping) = (device.query(tab, all(Refused::Hide)), device.query(tab, all(Refused::Keep)));
        Self { device, tab, hiding, keeping }
    }

    fn add(&mut self, title: &str) -> WriteId {
        let write = self.device.add(self.tab, title);
        self.device.run();
        write
    }

    fn refuse(&mut self, write: WriteId) {
        self.device.park(self.tab, write, "not this one");
    }

    /// Titles with their status, and the reason where there is one: of the query that hides, and of the other.
    fn shown(&mut self) -> [Vec<String>; 2] {
        let queries = [(self.hiding, Refused::Hide), (self.keeping, Refused::Keep)];
        queries.map(|(id, refused)| {
            let rows = self.device.rows(self.tab, id, &all(refused));
            rows.iter().map(told).collect()
        })
    }
}

fn told(row: &Value) -> String {
    let Value::Map(row) = row else { panic!("{row:?}") };
    let Value::Map(about) = &row["$"] else { panic!("{row:?}") };
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let parts = [row.get("title"), about.get("status"), about.get("code"), about.get("reason")];
    parts.map(text).join(" ").trim_end().to_owned()
}

#[test]
fn refused_insert_stays_where_it_is_asked_for_until_it_is_discarded() {
    let mut watched = Watched::new();
    watched.add("milk");
    let tea = watched.add("tea");
    watched.refuse(tea);
    let [hidden, kept] = watched.shown();
    assert_eq!(hidden, ["milk stored"]);
    assert_eq!(kept, ["milk stored", "tea refused malformed not this one"]);
    let tab = watched.device.reload(watched.tab);
    watched.device.open(tab);
    watched.tab = tab;
    watched.keeping = watched.device.query(tab, all(Refused::Keep));
    watched.hiding = watched.device.query(tab, all(Refused::Hide));
    assert_eq!(watched.shown()[1], ["milk stored", "tea refused malformed not this one"], "over a reload");
    let letter = watched.device.letters(tab)[0].0;
    watched.device.discard(tab, letter);
    assert_eq!(watched.shown(), [["milk stored"], ["milk stored"]]);
}

#[test]
fn refused_change_of_a_row_stays_on_it_and_later_work_counts() {
    let mut watched = Watched::new();
    let milk = watched.add("milk");
    let renamed = watched.device.rename(watched.tab, milk, "oat milk");
    watched.device.run();
    watched.refuse(renamed);
    assert_eq!(watched.shown(), [["milk stored"], ["oat milk refused malformed not this one"]]);
    watched.device.rename(watched.tab, milk, "soy milk");
    watched.device.run();
    let [hidden, kept] = watched.shown();
    assert_eq!(
        (hidden, kept),
        (vec!["soy milk stored".into()], vec!["soy milk refused malformed not this one".into()])
    );
}

#[test]
fn what_was_to_be_deleted_stays_marked() {
    let mut watched = Watched::new();
    let milk = watched.add("milk");
    let deleted = watched.device.delete(watched.tab, milk);
    watched.device.run();
    assert_eq!(watched.shown(), [Vec::<String>::new(), Vec::new()]);
    watched.refuse(deleted);
    assert_eq!(watched.shown(), [["milk stored"], ["milk refused malformed not this one"]]);
}

#[test]
fn redriven_row_is_pending_again() {
    let mut watched = Watched::new();
    let milk = watched.add("milk");
    watched.refuse(milk);
    let letter = watched.device.letters(watched.tab)[0].0;
    watched.device.redrive(watched.tab, letter, None).unwrap();
    watched.device.run();
    assert_eq!(watched.shown(), [["milk stored"], ["milk stored"]]);
}
