//! Line 5: one connection, one message at a time; how long the final reply takes.

use super::{
    Bench,
    accept::{Cell, Taker, measure},
};
use crate::{
    peers::{self, postfix},
    table::{Table, Target},
};
use anyhow::Result;

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let cell = |taker| Cell { taker, connections: 1, tls: false };
    let mut cells = vec![cell(Taker::Floor("file")), cell(Taker::Floor("sealed")), cell(Taker::Gateway)];
    match peers::missing(postfix::PROGRAMS, true) {
        Some(why) => println!("without Postfix: {why}"),
        None => cells.push(cell(Taker::PostfixQueue)),
    }
    let medians = measure(bench, &cells)?;
    Table::head("latency: one connection");
    medians.iter().for_each(|(cell, figures)| Table::row(&cell.to_string(), figures));
    println!();
    let p50 = |taker| medians.get(&cell(taker)).map_or(f64::NAN, |figures| figures.p50);
    let ratio = p50(Taker::Gateway) / p50(Taker::Floor("file"));
    table.judge(5, "p50 of the final reply, gateway / file floor", ratio, Target::AtMost(1.3));
    Ok(())
}
