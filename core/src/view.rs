//! Views: what an app's schema makes of visible records, and the live queries over them.
//!
//! ```text
//! touched records ──apply──► live queries (ordered indexes) ──► patches ──► subscribers
//! ```
//!
//! A view is derived and never written: it can be rebuilt at any time from what is visible. A change of one row costs
//! O(log n), whatever the size of the collection, and encodes that row once; queries with equal arguments share one
//! index. Rows and patches are msgpack, because they leave for another language anyway.

mod live;
mod patch;
mod query;
mod ranked;
mod row;
mod schema;

use std::collections::BTreeMap;

pub use patch::{Patch, write_patches, write_rows};
pub use query::{Column, Comparison, Condition, Direction, Query, QueryError, Refused};
pub use row::{Row, RowEdit};
pub use schema::{CollectionSchema, FieldSchema, Schema, Strategy};

use crate::id::{Name, RecordId};
use crate::overlay::{Touched, Visible};
use live::LiveQuery;
use row::{Rows, Texts};

/// Names a live query within one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u32);

/// The live queries of one log.
#[derive(Debug)]
pub struct View {
    schema: Schema,
    live: BTreeMap<QueryId, LiveQuery>,
    by_query: BTreeMap<Query, QueryId>,
    last: u32,
}

impl View {
    /// A view without queries.
    pub fn new(schema: Schema) -> Self {
        Self { schema, live: BTreeMap::new(), by_query: BTreeMap::new(), last: 0 }
    }

    /// The app's schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Begins a live query, or joins an equal one, and returns its rows. Each call wants an [`View::unquery`].
    ///
    /// # Errors
    /// [`QueryError`] names what the schema does not have.
    pub fn query(&mut self, visible: Visible<'_>, query: Query) -> Result<(QueryId, Vec<Row>), QueryError> {
        let visible = visible.keeping(query.keeps());
        if let Some(id) = self.by_query.get(&query).copied()
            && let Some(live) = self.live.get_mut(&id)
        {
            live.users += 1;
            return Ok((id, live.rows(&Rows::new(&self.schema, visible))));
        }
        query.check(&self.schema)?;
        self.last += 1;
        let id = QueryId(self.last);
        let rows = Rows::new(&self.schema, visible);
        let live = LiveQuery::new(query.clone(), &rows);
        let shown = live.rows(&rows);
        self.live.insert(id, live);
        self.by_query.insert(query, id);
        Ok((id, shown))
    }

    /// Ends one use of a live query.
    pub fn unquery(&mut self, id: QueryId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.users -= 1;
        if live.users == 0 {
            self.by_query.remove(live.query());
            self.live.remove(&id);
        }
    }

    /// The rows of a query, once.
    ///
    /// # Errors
    /// [`QueryError`] names what the schema does not have.
    pub fn select(&self, visible: Visible<'_>, query: Query) -> Result<Vec<Row>, QueryError> {
        self.select_with(visible, query, Texts::Whole)
    }

    /// The rows of a query, once, without their texts: [`Visible::text`] and its like read those.
    ///
    /// # Errors
    /// [`QueryError`] names what the schema does not have.
    pub fn select_for_draft(&self, visible: Visible<'_>, query: Query) -> Result<Vec<Row>, QueryError> {
        self.select_with(visible, query, Texts::LeftOut)
    }

    fn select_with(&self, visible: Visible<'_>, query: Query, texts: Texts) -> Result<Vec<Row>, QueryError> {
        query.check(&self.schema)?;
        let rows = Rows::new(&self.schema, visible.keeping(query.keeps()));
        Ok(LiveQuery::new(query, &rows).rows_once(&rows, texts))
    }

    /// One row, once, if the record is visible. The record of a `single` always is.
    pub fn row(&self, visible: Visible<'_>, collection: &Name, id: &RecordId) -> Option<Row> {
        Rows::new(&self.schema, visible).once(collection, id, Texts::Whole)
    }

    /// Like [`View::row`], without its texts: [`Visible::text`] and its like read those.
    pub fn row_for_draft(&self, visible: Visible<'_>, collection: &Name, id: &RecordId) -> Option<Row> {
        Rows::new(&self.schema, visible).once(collection, id, Texts::LeftOut)
    }

    /// What the changes of these records do to the live queries. Queries without changes are left out.
    pub fn apply(&mut self, visible: Visible<'_>, touched: &Touched) -> Vec<(QueryId, Vec<Patch>)> {
        self.apply_to(visible, touched, |_| true)
    }

    /// Whether a live query keeps refused entries in view.
    pub fn keeps(&self) -> bool {
        self.live.values().any(|live| live.query().keeps())
    }

    /// What the changes of refused entries on these records do to the live queries that keep them.
    pub fn apply_kept(&mut self, visible: Visible<'_>, touched: &Touched) -> Vec<(QueryId, Vec<Patch>)> {
        self.apply_to(visible, touched, Query::keeps)
    }

    fn apply_to(
        &mut self,
        visible: Visible<'_>,
        touched: &Touched,
        concerns: impl Fn(&Query) -> bool,
    ) -> Vec<(QueryId, Vec<Patch>)> {
        let mut rows = Rows::new(&self.schema, visible.keeping(false));
        let mut kept = Rows::new(&self.schema, visible.keeping(true));
        let mut all = Vec::new();
        for (id, live) in self.live.iter_mut().filter(|(_, live)| concerns(live.query())) {
            let rows = if live.query().keeps() { &mut kept } else { &mut rows };
            let patches = live.apply(touched, rows);
            if !patches.is_empty() {
                all.push((*id, patches));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Offset, Seq, WriteId};
    use crate::op::{Edit, FieldOp, Op};
    use crate::overlay::{Overlay, Pending};
    use crate::rich::Splice;
    use crate::state::FieldKey;
    use crate::state::fixture::*;
    use crate::value::Value;

    fn schema() -> Schema {
        let field = |strategy, default| FieldSchema { strategy, default };
        let fields = BTreeMap::from([
            (name("title"), field(Strategy::Register, Some(Value::from("")))),
            (name("due"), field(Strategy::Register, None)),
            (name("votes"), field(Strategy::Counter, None)),
            (name("tags"), field(Strategy::Set, None)),
            (name("note"), field(Strategy::Text, None)),
        ]);
        let head = BTreeMap::from([(name("name"), field(Strategy::Register, Some(Value::from("untitled"))))]);
        Schema {
            collections: BTreeMap::from([
                (name("todos"), CollectionSchema { single: false, fields }),
                (name("head"), CollectionSchema { single: true, fields: head }),
            ]),
        }
    }

    fn value(row: &Row) -> BTreeMap<String, Value> {
        match crate::codec::from_bytes(row.as_bytes()) {
            Ok(Value::Map(map)) => map,
            other => panic!("not a map: {other:?}"),
        }
    }

    fn ids(rows: &[Row]) -> Vec<String> {
        let id = |row| if let Value::Text(id) = &value(row)["id"] { id.clone() } else { String::new() };
        rows.iter().map(id).collect()
    }

    fn by_votes(limit: Option<u64>, offset: u64) -> Query {
        let more = Condition(Column::Field(name("votes")), Comparison::Gte, Value::from(0));
        let order = vec![(Column::Field(name("votes")), Direction::Desc), (Column::Id, Direction::Asc)];
        Query { conditions: vec![more], order, limit, offset, ..Query::all(name("todos")) }
    }

    #[test]
    fn rows_are_read_by_the_schema() {
        let (mut log, mut alice) = (Log::new(), Tab::new(1));
        let fields = vec![("votes", FieldOp::Increment(2)), ("tags", add(&["b", "a"])), ("extra", set("unknown"))];
        log.act(&mut alice, 0, vec![insert("x", fields)]);
        let overlay = Overlay::new();
        let visible = Visible::new(&log.state, &overlay);
        let row = View::new(schema()).row(visible, &name("todos"), &id("x")).expect("shown");
        let row = value(&row);
        let keys: Vec<_> = row.keys().map(String::as_str).collect();
        assert_eq!(keys, ["$", "id", "note", "tags", "title", "votes"], "due has neither value nor default");
        assert_eq!(row["tags"], Value::Array(vec![Value::from("a"), Value::from("b")]));
        assert_eq!((&row["votes"], &row["title"], &row["note"]), (&Value::from(2), &Value::from(""), &Value::from("")));
        let Value::Map(about) = &row["$"] else { panic!("a map") };
        assert_eq!(about["createdBy"], Value::from("user1"));
        assert_eq!(about["status"], Value::from("accepted"));
        assert_eq!(about["createdAt"], Value::Int(1_000_001));
    }

    #[test]
    fn a_single_has_its_row_before_anything_is_written() {
        let (log, overlay) = (Log::new(), Overlay::new());
        let rows = View::new(schema()).select(Visible::new(&log.state, &overlay), Query::all(name("head")));
        let rows = rows.expect("known");
        assert_eq!(rows.len(), 1);
        assert_eq!(value(&rows[0])["name"], Value::from("untitled"));
    }

    #[test]
    fn schemas_and_queries_read_what_typescript_writes() {
        let wire = Value::Map(BTreeMap::from([(
            "todos".to_owned(),
            Value::Map(BTreeMap::from([
                ("single".to_owned(), Value::from(false)),
                (
                    "fields".to_owned(),
                    Value::Map(BTreeMap::from([(
                        "title".to_owned(),
                        Value::Map(BTreeMap::from([
                            ("strategy".to_owned(), Value::from("register")),
                            ("default".to_owned(), Value::Null),
                        ])),
                    )])),
                ),
            ])),
        )]));
        let schema: Schema = crate::codec::from_bytes(&crate::codec::to_bytes(&wire)).expect("a schema");
        let title = &schema.collections[&name("todos")].fields[&name("title")];
        assert_eq!(title, &FieldSchema { strategy: Strategy::Register, default: Some(Value::Null) });
        let array = |items: Vec<Value>| Value::Array(items);
        let wire = array(vec![
            Value::from("todos"),
            array(vec![array(vec![Value::from("title"), Value::from("eq"), Value::from("x")])]),
            array(vec![array(vec![Value::from("id"), Value::from("desc")])]),
            Value::Null,
            Value::from(0),
        ]);
        let query: Query = crate::codec::from_bytes(&crate::codec::to_bytes(&wire)).expect("a query");
        assert_eq!(query.order, [(Column::Id, Direction::Desc)]);
        assert_eq!(query.check(&schema), Ok(()));
    }

    #[test]
    fn equal_queries_share_one_and_unknown_fields_are_named() {
        let (log, overlay) = (Log::new(), Overlay::new());
        let visible = Visible::new(&log.state, &overlay);
        let mut view = View::new(schema());
        let (first, _) = view.query(visible, by_votes(None, 0)).expect("known");
        let (second, _) = view.query(visible, by_votes(None, 0)).expect("known");
        assert_eq!(first, second);
        view.unquery(first);
        assert_eq!(view.live.len(), 1);
        view.unquery(second);
        assert!(view.live.is_empty() && view.by_query.is_empty());
        let mut query = by_votes(None, 0);
        query.order.push((Column::Field(name("nope")), Direction::Asc));
        let error = QueryError::UnknownField { collection: name("todos"), field: name("nope") };
        assert_eq!(view.query(visible, query), Err(error));
    }

    #[test]
    fn patches_lead_to_the_rows_of_a_fresh_query() {
        let queries =
            [by_votes(None, 0), by_votes(Some(3), 0), by_votes(Some(4), 2), by_votes(Some(0), 1), by_votes(None, 5)];
        let (mut log, mut alice, overlay) = (Log::new(), Tab::new(1), Overlay::new());
        let mut view = View::new(schema());
        let mut shown: BTreeMap<QueryId, (Query, Vec<Row>)> = BTreeMap::new();
        for query in queries {
            let (id, rows) = view.query(Visible::new(&log.state, &overlay), query.clone()).expect("known");
            shown.insert(id, (query, rows));
        }
        let mut seed = 11u32;
        for _ in 0..300 {
            let mut touched = Touched::new();
            for _ in 0..1 + seed % 4 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let record = format!("r{}", (seed >> 10) % 12);
                let op: Op = match (seed >> 20) % 4 {
                    0 => delete(&record),
                    1 => update(&record, "title", set(&seed.to_string())),
                    _ => insert(&record, vec![("votes", FieldOp::Increment(i64::from((seed >> 24) % 5) - 2))]),
                };
                let base = log.state.cursor().next.0;
                touched.extend(log.act(&mut alice, base, vec![op]).touched);
            }
            let visible = Visible::new(&log.state, &overlay);
            for (id, patches) in view.apply(visible, &touched) {
                let (_, rows) = shown.get_mut(&id).expect("open");
                patches.iter().for_each(|patch| patch.apply(rows));
            }
            for (query, rows) in shown.values() {
                let fresh = view.select(visible, query.clone()).expect("known");
                assert_eq!(ids(rows), ids(&fresh), "{query:?}");
                assert_eq!(rows, &fresh);
            }
        }
    }

    #[test]
    fn a_keystroke_is_told_by_its_splice_and_not_by_the_whole_text() {
        let (mut log, mut alice, mut overlay) = (Log::new(), Tab::new(1), Overlay::new());
        let long = Edit::InitialText("lorem ipsum ".repeat(1_000));
        log.act(
            &mut alice,
            0,
            vec![insert("x", vec![("note", FieldOp::Edit(long)), ("votes", FieldOp::Increment(1))])],
        );
        let mut view = View::new(schema());
        let all = Query::all(name("todos"));
        let (_, mut rows) = view.query(Visible::new(&log.state, &overlay), all.clone()).expect("known");
        let limited = Query { limit: Some(1), ..all.clone() };
        let (_, mut first) = view.query(Visible::new(&log.state, &overlay), limited).expect("known");
        let note = FieldKey { key: key("x"), field: name("note") };
        for (at, typed) in ["H", "e", "y"].into_iter().enumerate() {
            let splice = Splice { at, delete: 0, insert: typed.to_owned() };
            let author = (alice.actor, alice.run);
            let change = overlay.edit_text(&log.state, &note, &[splice], author, &[]).expect("fits");
            let entry = alice.act(1, 1_000_010, vec![update("x", "note", FieldOp::Edit(Edit::Change(change)))]);
            let write = WriteId { run: alice.run, n: entry.header.n };
            let (time, body) = (entry.header.time, entry.body.clone());
            let (base, own_seen) = (Offset(1), Seq(0));
            let pending = Pending { write, actor: alice.actor, seq: None, base, own_seen, time, body };
            let touched = overlay.push(&log.state, pending);
            let patches = view.apply(Visible::new(&log.state, &overlay), &touched);
            let mut bytes = Vec::new();
            assert_eq!(patches.len(), 2);
            for ((_, patches), rows) in patches.iter().zip([&mut rows, &mut first]) {
                write_patches(patches, &mut bytes);
                patches.iter().for_each(|patch| patch.apply(rows));
            }
            // The first one opens the document: nobody watched it before.
            assert_eq!(bytes.len() < 300, at > 0, "{} bytes for keystroke {at}", bytes.len());
        }
        assert_eq!(value(&rows[0]), value(&first[0]));
        let fresh = view.row(Visible::new(&log.state, &overlay), &name("todos"), &id("x")).expect("shown");
        assert_eq!(value(&rows[0]), value(&fresh));
        let brief = view.row_for_draft(Visible::new(&log.state, &overlay), &name("todos"), &id("x")).expect("shown");
        assert!(!value(&brief).contains_key("note"), "drafts read texts by themselves");
    }
}
