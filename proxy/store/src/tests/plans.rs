//! plans: no statement searches more than it says.

use rusqlite::Connection;

use crate::{schema, sql};

fn plan(connection: &Connection, statement: &str) -> Vec<String> {
    let mut explained =
        connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).expect("it is explained");
    let rows = explained.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<_, _>>();
    rows.expect("a plan has lines")
}

#[test]
fn every_statement_finds_its_rows_by_number_unless_its_name_says_otherwise() {
    let connection = Connection::open_in_memory().expect("it opens");
    schema::create(&connection, false).expect("the tables are made");
    for (name, statement) in sql::ALL.iter().filter(|(_, text)| !text.starts_with("PRAGMA")) {
        for line in plan(&connection, statement) {
            assert!(!line.contains("TEMP B-TREE"), "{name} sorts: {line}");
            assert!(!line.contains("AUTOMATIC"), "{name} builds an index: {line}");
            let of_all = ["QUEUES_SCAN", "QUEUE_NUMBERS_SCAN", "RESULT_FIRST", "ROOTS", "SCHEMA_SCAN"];
            let allowed = of_all.contains(name) || ["TREES_SCAN", "TREE_PAGES_SCAN"].contains(name);
            assert!(allowed || !line.starts_with("SCAN"), "{name} reads a whole table: {line}");
        }
    }
}

#[test]
fn the_dead_are_found_by_their_own_index() {
    let connection = Connection::open_in_memory().expect("it opens");
    schema::create(&connection, false).expect("the tables are made");
    let lines = plan(&connection, sql::MESSAGES_APART);
    assert!(lines[0].contains("USING INDEX apart (queue=? AND state=? AND rowid>?)"), "{lines:?}");
}
