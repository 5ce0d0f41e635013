//! What is true: names, roles, instances and keys, token requests, tokens, routes, decisions.
//! Rules are pure; `now` is an argument. Knows no sockets, no SQL, no files.

pub mod artifact;
pub mod authorization;
pub mod backend;
pub mod client;
pub mod credential;
pub mod csrf;
pub mod decision;
pub mod destination;
pub mod exchange;
pub mod grant;
pub mod instance;
pub mod issuer;
pub mod key;
pub mod material;
pub mod name;
pub mod outlook;
pub mod path;
pub mod rate;
pub mod reason;
pub mod record;
pub mod role;
pub mod route;
pub mod signing;
pub mod target;
pub mod tenant;
pub mod token;
pub mod trail;
