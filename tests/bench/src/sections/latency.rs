//! Line 5: one connection, one message at a time; how long the final reply takes, beside what the disk takes for the same.

use super::{
    Bench,
    accept::{Cell, Taker, halves, measure_beside},
};
use crate::{
    peers::{self, postfix},
    steps::Steps,
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
    let mut steps = Steps::default();
    let medians = measure_beside(bench, &cells, || steps.take(&crate::fresh(&bench.folder, "steps")?, &halves(bench)))?;
    Table::head("latency: one connection");
    medians.iter().for_each(|(cell, figures)| Table::row(&cell.to_string(), figures));
    let p50 = |taker| medians.get(&cell(taker)).map_or(f64::NAN, |figures| figures.p50);
    let (own, floor) = (p50(Taker::Gateway), p50(Taker::Floor("file")));
    steps.print(own, floor);
    println!();
    let ratio = own / floor;
    table.judge(5, "p50 of the final reply, gateway / file floor", ratio, Target::AtMost(1.3));
    Ok(())
}
