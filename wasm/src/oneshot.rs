//! One value handed from whoever has it later to whoever waits for it, within one thread.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

struct Shared<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// The giving end. Dropped without giving, it lets the other end know.
pub(crate) struct Sender<T>(Weak<RefCell<Shared<T>>>);

/// The waiting end: resolves to the value, or to `None` when nobody can give one any more.
pub(crate) struct Receiver<T>(Rc<RefCell<Shared<T>>>);

/// A pair of ends.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(RefCell::new(Shared { value: None, waker: None }));
    (Sender(Rc::downgrade(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Gives the value; if nobody waits any more it is dropped.
    pub(crate) fn send(self, value: T) {
        if let Some(shared) = self.0.upgrade() {
            shared.borrow_mut().value = Some(value);
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = self.0.upgrade().and_then(|shared| shared.borrow_mut().waker.take());
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shared = self.0.borrow_mut();
        if let Some(value) = shared.value.take() {
            return Poll::Ready(Some(value));
        }
        // The sender wakes while it is dropped, when its own reference is gone already or about to go.
        if Rc::weak_count(&self.0) == 0 {
            return Poll::Ready(None);
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
