//! The calling thread as another user (setresuid(2), of this thread alone): whom the peer of a socket sees.

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySets, capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid,
};
use std::io;

/// What the calling thread may do, to be kept while it is somebody else.
#[derive(Clone, Copy)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    sets: CapabilitySets,
}

impl Identity {
    /// The calling thread's, as it is now. Being others takes CAP_SETUID and CAP_SETGID.
    pub fn current() -> io::Result<Identity> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Ok(Identity { uid, gid, sets: capabilities(None)? })
    }

    /// Calls `act` as the effective user `uid` of the group `gid`, with the thread's own capabilities. Never as the
    /// thread itself instead: an error, if it cannot be that user.
    pub fn act_as<T>(&self, uid: u32, gid: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // -1 is no id, and would change nothing.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL.into());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        if (uid, gid) == (self.uid, self.gid) {
            return act();
        }
        let _restored = Restored(*self);
        set_thread_res_gid(None, gid, None)?;
        set_thread_res_uid(None, uid, None)?;
        // Leaving uid 0 made them ineffective.
        set_capabilities(None, self.sets)?;
        act()
    }
}

/// Makes the thread itself again when dropped.
struct Restored(Identity);

impl Drop for Restored {
    fn drop(&mut self) {
        // These cannot fail: the real and saved ids were never changed.
        let _ = set_thread_res_uid(None, self.0.uid, None);
        let _ = set_thread_res_gid(None, self.0.gid, None);
        let _ = set_capabilities(None, self.0.sets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_servers_client_is_who_the_thread_says_and_then_itself_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to be others");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let server = UnixListener::bind(&path).unwrap();
        let seen = || {
            let (client, _) = server.accept().unwrap();
            let peer = getsockopt(&client, PeerCredentials).unwrap();
            (peer.uid(), peer.gid())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let identity = Identity::current().unwrap();
                let connect = || UnixStream::connect(&path);
                let _client = identity.act_as(1000, 2000, connect).unwrap();
                assert_eq!(seen(), (1000, 2000));
                let _client = UnixStream::connect(&path).unwrap();
                assert_eq!(seen(), (0, 0));
                assert!(identity.act_as(u32::MAX, 0, connect).is_err());
            });
        });
    }
}
