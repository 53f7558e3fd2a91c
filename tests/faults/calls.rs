//! A call of the disk fails, one after the other: the server ends with an error, and its disk is whole.

use driftlog_server::{Access, Config, ServeError, StoreError, serve};
use driftlog_tests::disk::{Disk, Fault, Loss, Moment, VFS};
use driftlog_tests::peer::Peer;
use tokio::net::TcpListener;

use crate::workload::{Workload, open, scrub};

const OPERATIONS: usize = 8;

/// Runs the workload until it is through or the server ends; the error it ends with.
fn run(disk: &Disk, workload: &mut Workload) -> Option<StoreError> {
    let mut server = match open(disk) {
        Ok(server) => server,
        Err(error) => return Some(error),
    };
    if let Err(error) = workload.connect(&mut server) {
        return Some(error);
    }
    (0..OPERATIONS).find_map(|_| workload.operate(&mut server).err())
}

/// One fault at a moment, a restart, and everybody goes on. Whether the moment came, and whether the server ended.
fn fail(moment: Moment, fault: Fault, loss: Loss) -> (bool, bool) {
    let disk = Disk::new(1);
    let mut workload = Workload::new();
    disk.fail(moment, fault);
    let error = run(&disk, &mut workload);
    let came = match moment {
        Moment::Call(at) => disk.calls() >= at,
        Moment::Change(at) => disk.changes() >= at,
        Moment::Sync(at) => disk.syncs() >= at,
    };
    if let Some(error) = &error {
        let clear = matches!(error, StoreError::Sqlite(_) | StoreError::NoLog);
        assert!(clear, "{moment:?} {fault:?}: {error:?}");
    }
    disk.crash(loss);
    let mut server = open(&disk).expect("opens again");
    let tally = workload.check(&server).expect("reads");
    assert_eq!(tally.findings, Vec::<String>::new(), "{moment:?} {fault:?}");
    workload.connect(&mut server).expect("connects");
    assert!(workload.is_settled(), "{moment:?} {fault:?}: what was not answered is decided now");
    assert_eq!(workload.check(&server).expect("reads").findings, Vec::<String>::new(), "{moment:?} {fault:?}");
    drop(server);
    assert_eq!(scrub(&disk).findings, [], "{moment:?} {fault:?}");
    (came, error.is_some())
}

/// Every moment of a kind, until one does not come any more. How many servers ended, of how many.
fn fail_at_each(moment: fn(u64) -> Moment, fault: Fault, loss: Loss) -> (u64, u64) {
    let (mut ended, mut count) = (0, 0);
    while let (true, end) = fail(moment(count + 1), fault, loss) {
        count += 1;
        ended += u64::from(end);
    }
    (ended, count)
}

#[test]
fn every_failing_call_ends_the_server_or_changes_nothing() {
    for loss in [Loss::Nothing, Loss::Unsynced] {
        let (ended, count) = fail_at_each(Moment::Call, Fault::Io, loss);
        assert!(count > 200 && ended > count / 2, "{ended} of {count}");
    }
}

#[test]
fn every_call_that_finds_no_space_ends_the_server_or_changes_nothing() {
    let (ended, count) = fail_at_each(Moment::Change, Fault::Full, Loss::Nothing);
    assert!(count > 100 && ended > count / 2, "{ended} of {count}");
}

#[test]
fn every_failing_sync_ends_the_server() {
    let (ended, count) = fail_at_each(Moment::Sync, Fault::Io, Loss::Unsynced);
    // The last two are of the checkpoint when the last connection closes: everything is durable before it.
    assert!(count > 12 && ended + 2 == count, "{ended} of {count}");
}

#[tokio::test]
async fn a_server_on_a_full_disk_says_so_and_ends() {
    let disk = Disk::new(1);
    let mut config = Config::new(disk.folder(), Access::Development);
    config.vfs = Some(VFS.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = listener.local_addr().expect("an address").to_string();
    let server = tokio::spawn(serve(listener, config, std::future::pending()));
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&url).await;
    disk.set_capacity(Some(disk.files().iter().map(|(_, bytes)| bytes).sum()));
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    let error = server.await.expect("no panic").expect_err("it ends");
    assert!(matches!(&error, ServeError::Store(StoreError::Sqlite(_))), "{error:?}");
    assert!(error.to_string().contains("full"), "{error}");
    while let Some(frame) = socket.receive().await {
        assert!(!matches!(frame, driftlog_core::protocol::frame::Frame::Ack(_)), "nothing is answered for it");
    }
}
