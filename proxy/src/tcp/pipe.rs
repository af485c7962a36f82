//! A pipe in the kernel that bytes pass through from one socket to another without being copied (`splice(2)`).
//!
//! A pipe is filled only when it is empty, so that "would block" always tells of the socket; how many a worker has open is
//! limited, and who gets none copies.
//! Never here: when a pipe is worth it. Called by `relay`.

use std::{
    cell::Cell,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

use crate::limits::{TCP_PIPE_BYTES, TCP_PIPES_MAX};

/// The pipes of a worker.
#[derive(Debug, Default)]
pub(super) struct Pipes(Rc<Cell<usize>>);

/// One pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
    capacity: usize,
    open: Rc<Cell<usize>>,
}

impl Pipes {
    /// Opens a pipe; none: there are enough, or the system gives none.
    pub(super) fn open(&self) -> Option<Pipe> {
        if self.0.get() >= TCP_PIPES_MAX {
            return None;
        }
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Without the right to a larger one the pipe stays as it is, and the bytes pass in smaller pieces.
        let capacity = fcntl_setpipe_size(&into, TCP_PIPE_BYTES).unwrap_or(64 * 1024);
        self.0.set(self.0.get() + 1);
        Some(Pipe { out, into, held: 0, capacity, open: Rc::clone(&self.0) })
    }
}

impl Pipe {
    /// Takes what the socket has; 0: it has said its last. Only for an empty pipe.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let taken =
                from.try_io(Interest::READABLE, || Ok(splice(from, None, &self.into, None, self.capacity, FLAGS)?));
            match taken {
                Ok(count) => {
                    self.held += count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives all it holds to the socket.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            let given = to.try_io(Interest::WRITABLE, || Ok(splice(&self.out, None, to, None, self.held, FLAGS)?));
            match given {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.held -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (far.unwrap(), near.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_pass_and_the_end_is_told() {
        let ((mut from, near), (mut to, far)) = (pair().await, pair().await);
        let pipes = Pipes::default();
        let mut pipe = pipes.open().unwrap();
        from.write_all(b"hello").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &near)).await.unwrap(), 5);
        poll_fn(|cx| pipe.drain(cx, &far)).await.unwrap();
        let mut got = [0; 5];
        to.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        from.shutdown().await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &near)).await.unwrap(), 0);
    }

    #[test]
    fn a_worker_has_no_more_pipes_than_its_limit() {
        let pipes = Pipes::default();
        let mut open: Vec<Pipe> = std::iter::from_fn(|| pipes.open()).take(TCP_PIPES_MAX + 1).collect();
        assert_eq!(open.len(), TCP_PIPES_MAX);
        open.pop();
        assert!(pipes.open().is_some());
    }
}
