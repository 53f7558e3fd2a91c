//! Looking up own entries costs what is asked for, not what was ever written.

use driftlog_core::engine::{Own, OwnStatus};
use driftlog_core::id::Seq;

use crate::device::{Device, log};

#[test]
fn one_entry_among_many_is_found_by_reading_two_rows() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    let writes: Vec<_> = (0..300)
        .map(|at| {
            let write = device.add(tab, &format!("todo {at:03}"));
            if at % 3 == 2 {
                device.run();
            }
            write
        })
        .collect();
    let again = device.reload(tab);
    device.open(again);
    device.rows_read = 0;
    for at in [0, 1, 2, 150, 299] {
        let found = device.entry(again, writes[at]).unwrap();
        assert_eq!((found.write, found.id.map(|id| id.seq.0)), (writes[at], Some(at as u64 + 1)));
        assert_eq!(found.status, OwnStatus::Accepted(None));
        assert_eq!(found.place.map(|(offset, _)| offset.0), Some(at as u64), "the tail was read when it was opened");
    }
    assert_eq!(device.rows_read, 5 * 2);
    let unknown = driftlog_core::id::WriteId { n: 301, ..writes[0] };
    assert_eq!(device.entry(again, unknown), None);
    device.rows_read = 0;
    assert_eq!(device.entries(again, Own::All).len(), 300);
    assert_eq!(device.rows_read, 200, "a list of all reads all groups: of each three the first was alone under way");
}

#[test]
fn what_is_not_accepted_is_listed_without_reading() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    device.add(tab, "milk");
    let refused = device.add(tab, "bad bread");
    device.run();
    let again = device.reload(tab);
    device.open(again);
    let stored = device.add(again, "tea");
    device.run();
    let pending = device.add(again, "salt");
    device.rows_read = 0;
    let listed: Vec<_> =
        device.entries(again, Own::NotAccepted).into_iter().map(|entry| (entry.write, entry.status)).collect();
    let reason = OwnStatus::Refused(
        driftlog_core::protocol::frame::MarkedStatus::Refused,
        Some(driftlog_core::protocol::Code::EntryForbidden.number()),
        "that is bad".to_owned(),
    );
    assert_eq!(listed, [(refused, reason), (stored, OwnStatus::Stored), (pending, OwnStatus::Pending)]);
    let letters: Vec<_> = device.entries(again, Own::Refused(Seq(0))).into_iter().map(|entry| entry.write).collect();
    assert_eq!(letters, [refused]);
    assert_eq!(device.entries(again, Own::Refused(Seq(1_000))), [], "those from a seq on");
    assert_eq!(device.rows_read, 0);
    let all: Vec<_> = device.entries(again, Own::All).into_iter().map(|entry| entry.write).collect();
    assert_eq!(all.len(), 4);
}

#[test]
fn a_store_that_cannot_be_read_is_said_and_no_list_of_nothing() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    let write = device.add(tab, "milk");
    device.run();
    device.reads_fail = Some("the disk does not answer".to_owned());
    let reason = Err("the disk does not answer".to_owned());
    assert_eq!(device.look_up(tab, |engine| engine.own_entries(&log(), Own::All)), reason);
    assert_eq!(device.look_up(tab, |engine| engine.own_entry(&log(), write)), reason);
    device.reads_fail = None;
    assert_eq!(device.entry(tab, write).map(|entry| entry.write), Some(write));
    assert_eq!(device.entries(tab, Own::All).len(), 1);
}
