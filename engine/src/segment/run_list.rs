//! Collects the blocks of one timeline's runs while its segment is written: as a list, or as a
//! table once the list would be long.

use super::blocks::Blocks;
use crate::error::Result;
use crate::format::block::{BlockKind, Compression};
use crate::format::index::{MAX_LISTED_BLOCKS, RunBlock, RunBlocks};
use crate::format::table::{Row, TableWriter};

/// The blocks so far.
#[derive(Default)]
pub(super) struct RunList {
    listed: Vec<RunBlock>,
    table: Option<TableWriter>,
}

impl RunList {
    /// Whether there is no block yet.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.table.is_none()
    }

    /// Adds the next block. Full pages of a table go into the index file.
    pub fn add(&mut self, run: RunBlock, index: &mut Blocks) -> Result<()> {
        if self.table.is_none() && self.listed.len() < MAX_LISTED_BLOCKS {
            self.listed.push(run);
            return Ok(());
        }
        let table = self.table.get_or_insert_default();
        for run in self.listed.drain(..).chain([run]) {
            let row = Row { key: &run.key(), block: run.block, filter: &[] };
            table
                .add(row, &mut |page| index.block(BlockKind::RunTable, page, Compression::None))?;
        }
        Ok(())
    }

    /// The blocks, as the timeline's entry stores them.
    pub fn finish(self, index: &mut Blocks) -> Result<RunBlocks> {
        match self.table {
            None => Ok(RunBlocks::Listed(self.listed)),
            Some(table) => {
                let root = table.finish(&mut |page| {
                    index.block(BlockKind::RunTable, page, Compression::None)
                })?;
                Ok(RunBlocks::Table(root))
            }
        }
    }
}
