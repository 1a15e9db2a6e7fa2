//! Jobs: functions that read tables and memtables, write tables and return what they made. They
//! start no threads and know no database; one place above applies what they return.

pub(crate) mod compact;
pub(crate) mod flush;
#[cfg(test)]
mod measure;
pub(crate) mod output;
pub(crate) mod pick;
pub(crate) mod retain;
