//! Directories of tests that change some calls of a simulated disk and pass on the others.

/// The named methods of `RawDirectory`, as the field `disk` has them.
macro_rules! as_the_disk {
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
