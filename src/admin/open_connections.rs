//! The open connections of the admin port, and which of them ends when there is no room.
//!
//! Invariant: a new connection always finds room, so that health is answered whatever strangers do. The one that
//! was quiet for the longest ends for it, first of those without an API key, and first of the address with the most
//! of them. A call in progress is never ended; calls are bounded on their own, below the bound of connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::connection::Connection;

pub(super) struct OpenConnections {
    open: RefCell<Vec<Rc<Connection>>>,
    calls: Rc<Cell<usize>>,
    max: usize,
}

/// Counts a call in progress.
pub(super) struct Call(Rc<Cell<usize>>);

/// Removes the connection when it is dropped.
pub(super) struct OpenGuard {
    connections: Rc<OpenConnections>,
    connection: Rc<Connection>,
}

impl OpenConnections {
    pub fn new(max: usize) -> Self {
        Self { open: RefCell::default(), calls: Rc::default(), max: max.max(8) }
    }

    /// Adds a connection. If there are too many, another one ends; if each has a call in progress, this one.
    pub fn add(self: &Rc<Self>, connection: &Rc<Connection>) -> Option<OpenGuard> {
        while self.open.borrow().len() >= self.max {
            self.end_one()?;
        }
        self.open.borrow_mut().push(Rc::clone(connection));
        Some(OpenGuard { connections: Rc::clone(self), connection: Rc::clone(connection) })
    }

    /// Counts a call; `None` if there are too many, so that some connections are left for health.
    pub fn begin_call(&self) -> Option<Call> {
        if self.calls.get() >= self.max - self.max / 8 {
            return None;
        }
        self.calls.set(self.calls.get() + 1);
        Some(Call(Rc::clone(&self.calls)))
    }

    fn end_one(&self) -> Option<()> {
        let mut open = self.open.borrow_mut();
        let idle = || open.iter().enumerate().filter(|(_, connection)| !connection.is_calling());
        let mut of_address = HashMap::new();
        for (_, connection) in idle() {
            *of_address.entry(connection.network).or_insert(0_usize) += 1;
        }
        let (index, _) = idle().min_by_key(|(_, connection)| {
            let others = of_address.get(&connection.network).copied().unwrap_or_default();
            (connection.has_key.get(), usize::MAX - others, connection.used.get())
        })?;
        open.swap_remove(index).end();
        Some(())
    }
}

impl OpenGuard {
    pub fn connections(&self) -> Rc<OpenConnections> {
        Rc::clone(&self.connections)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut open = self.connections.open.borrow_mut();
        if let Some(index) = open.iter().position(|one| Rc::ptr_eq(one, &self.connection)) {
            open.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests;
