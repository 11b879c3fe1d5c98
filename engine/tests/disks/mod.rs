//! Directories and files of tests that change some calls of a simulated disk and pass on the
//! others.

/// The named methods of `RawDirectory`, as the field `disk` has them; after `file`, those of
/// `RawFile`, as the field `file` has them.
macro_rules! as_the_disk {
    (file $($call:ident),*) => { $(as_the_disk! { @file $call })* };
    (@file len) => {
        fn len(&self) -> std::io::Result<u64> {
            self.file.len()
        }
    };
    (@file read_at) => {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            self.file.read_at(offset, buffer)
        }
    };
    (@file write_at) => {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            self.file.write_at(offset, bytes)
        }
    };
    (@file set_len) => {
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.file.set_len(len)
        }
    };
    (@file sync) => {
        fn sync(&self, site: strandline::vfs::Site) -> std::io::Result<()> {
            self.file.sync(site)
        }
    };
    ($($call:ident),*) => { $(as_the_disk! { @$call })* };
    (@path) => {
        fn path(&self) -> std::path::PathBuf {
            strandline::vfs::RawDirectory::path(&self.disk)
        }
    };
    (@lock) => {
        fn lock(&self, name: &str, alone: bool) -> std::io::Result<Box<dyn Send + Sync>> {
            strandline::vfs::RawDirectory::lock(&self.disk, name, alone)
        }
    };
    (@list) => {
        fn list(&self) -> std::io::Result<Vec<String>> {
            strandline::vfs::RawDirectory::list(&self.disk)
        }
    };
    (@create) => {
        fn create(
            &self,
            name: &str,
        ) -> std::io::Result<std::sync::Arc<dyn strandline::vfs::RawFile>> {
            strandline::vfs::RawDirectory::create(&self.disk, name)
        }
    };
    (@open) => {
        fn open(
            &self,
            name: &str,
        ) -> std::io::Result<std::sync::Arc<dyn strandline::vfs::RawFile>> {
            strandline::vfs::RawDirectory::open(&self.disk, name)
        }
    };
    (@rename) => {
        fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
            strandline::vfs::RawDirectory::rename(&self.disk, from, to)
        }
    };
    (@remove) => {
        fn remove(&self, name: &str) -> std::io::Result<()> {
            strandline::vfs::RawDirectory::remove(&self.disk, name)
        }
    };
    (@sync) => {
        fn sync(&self, site: strandline::vfs::Site) -> std::io::Result<()> {
            strandline::vfs::RawDirectory::sync(&self.disk, site)
        }
    };
}
pub(crate) use as_the_disk;
