//! System tests: the real server with its real store, over real sockets, spoken to in raw frames.

mod bad_input;
mod connections;
mod crash;
mod dead_letters;
mod erase;
mod fan_out;
mod files;
mod gate;
mod growth;
mod offline;
mod presence;
mod pressure;
mod priorities;
mod retention;
mod rich;
mod rules;
mod running;
mod spine;
mod tokens;
mod verdicts;
