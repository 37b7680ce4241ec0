//! Listeners: caches and watchers, who hear what happens without any promise, and are told when they may have missed something.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::event::Event;

/// Events that a listener may be behind before it misses some.
const LISTENER_BEHIND_MAX: usize = 1_024;

/// Hears events. Dropped, it hears no more.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Heard>);

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(Arc<Event>),
    /// So many events were missed, 0 if nobody can know: whatever was concluded from events must be concluded anew.
    Lagged(u64),
}

/// The bus' end of a listener, and the listener.
pub(crate) fn pair() -> (broadcast::Sender<Heard>, Listener) {
    let (sender, receiver) = broadcast::channel(LISTENER_BEHIND_MAX);
    (sender, Listener(receiver))
}

impl Listener {
    /// The next event; `None`: the bus is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(heard) => Some(heard),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
