// The manifest: what a service needs, as its author wrote it and after drop-ins and defaults. Names stay
// names here (users, capabilities, syscall groups): turning them into numbers of a host is the business of
// closure/ and policy/. contrib/man/jail.toml.5 says what each key means; contrib/schema has the JSON schema.
// Keep the three in step.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace jail::manifest {

using std::chrono::milliseconds;

/// Where a value was written. Line and column count from 1; line 0 is a default that no file gave.
struct Origin {
  std::string file;
  unsigned line = 0;
  unsigned column = 0;
};

/// [tree] files: exactly one of `from` (a file or directory of the source root, copied whole) and `text`.
struct File {
  std::string to;
  std::optional<std::string> from;
  std::optional<std::string> text;
  std::optional<unsigned> mode;  ///< of a file; default: the source's without set-id bits, 0644 for text
  std::string owner = "root";
  std::string group = "root";
  bool secret = false;
  std::vector<std::string> xattrs = {};  ///< names of extended attributes that are copied with it
};

struct Tree {
  std::vector<std::string> binaries;
  std::vector<std::string> libraries;  ///< a soname, or an absolute path
  std::vector<std::string> include;    ///< names of bundles
  std::vector<std::string> exclude;    ///< bundles that do not join by themselves, nor are offered
  std::vector<File> files;             ///< identity: `to`
  std::vector<std::string> users;
  std::vector<std::string> groups;       ///< beyond the primary groups of `users`
  std::vector<std::string> devices;      ///< relative to /dev; default: null, zero, full, random, urandom
  std::vector<std::string> directories;  ///< empty ones, root-owned 0755
};

/// [dlopen]: what of the libraries comes along that programs say they load at run time (.note.dlopen,
/// UAPI.12).
struct Dlopen {
  std::string level = "recommended";  ///< none | required | recommended | suggested: these, and what is above
  std::vector<std::string> include;   ///< features of any priority, by pattern; stronger than `omit`
  std::vector<std::string> omit;      ///< features that are left out, by pattern
  std::vector<std::string> ignore;    ///< no warning of these libraries, by pattern
};

/// A live directory or file of the host, bound read-only. Identity: `to`.
struct Config {
  std::string from;
  std::string to;  ///< default: `from`
  bool optional = false;
};

/// A directory that a volume starts with: made by a build where it is missing. Identity: `path`.
struct VolumeDirectory {
  std::string path;   ///< relative to the volume
  std::string owner;  ///< default: the volume's
  std::string group;  ///< default: the primary group of `owner`, where that is given; else the volume's
  unsigned mode = 0750;
};

/// Named state. Identity: `name`.
struct Volume {
  std::string name;
  std::string path;
  std::string owner = "root";
  std::string group;  ///< default: the owner's primary group
  unsigned mode = 0750;
  bool exec = false;
  std::vector<std::string> files =
      {};  ///< names of files that the daemon must find: made empty where missing
  std::vector<VolumeDirectory> directories = {};
};

/// Sockets that the supervisor opens, keeps and passes. Identity: `name`.
struct Socket {
  std::string name;                 ///< LISTEN_FDNAMES
  std::vector<std::string> listen;  ///< see spec/socket_address.h; a descriptor each
  unsigned backlog = 4096;
  std::string owner = "root";  ///< of a unix socket's file; so are the next two
  std::string group;           ///< default: the owner's primary group
  unsigned mode = 0600;
};

struct Restart {
  std::string on = "failure";  ///< never | failure | always
  milliseconds delay{100};
  milliseconds max_delay{30000};
  unsigned limit = 5;
  milliseconds window{60000};
};

struct Stop {
  std::string signal = "SIGTERM";
  milliseconds timeout{10000};
};

struct Service {
  std::vector<std::string> command;
  std::string user;
  std::string group;                ///< default: the user's primary group
  std::vector<std::string> groups;  ///< supplementary; exactly these
  std::map<std::string, std::string> environment;
  std::string directory = "/";  ///< working directory
  unsigned umask = 0022;
  std::vector<std::string> ready;  ///< of started, notify, listen, check; default: started
  milliseconds ready_timeout{30000};
  std::vector<std::string>
      check_config;                      ///< asked in the jail before a reload or restart; default: nobody is
  std::string reload = "refuse";         ///< refuse | restart | a signal's name
  std::vector<std::string> log_sockets;  ///< /dev/log once more, for what the daemon chroots further
  Restart restart;
  Stop stop;
  int nice = 0;
  int oom_score_adjust = 0;
};

struct Limits {
  std::optional<std::uint64_t> memory;  ///< bytes
  std::optional<std::uint64_t> processes;
  std::optional<std::uint64_t> files;  ///< RLIMIT_NOFILE
  std::optional<std::uint64_t> core;   ///< RLIMIT_CORE, bytes; default 0
};

struct Sandbox {
  std::vector<std::string> capabilities;  ///< names without CAP_
  std::vector<std::string> syscalls;      ///< "@group" or a call's name; default: @default
  std::string network = "host";           ///< host | none | private | netns:NAME
  std::vector<std::string> listen;        ///< [sandbox] ports.listen: "udp:53"
  std::vector<std::string> optional;      ///< may be listened on, too, and nothing waits for it
  std::vector<std::string> connect;
  Limits limits;
  std::uint64_t tmp = 64ULL << 20U;  ///< size of the private /tmp, bytes
  std::string hostname;              ///< default: the jail's name
  bool memory_deny_write_execute = true;
  std::vector<std::string> require;
};

struct Check {
  std::vector<std::string> command;
  std::string expect;
  milliseconds timeout{5000};
  milliseconds interval{0};
};

/// What may be done with a stale jail while nobody watches.
struct Refresh {
  bool automatic = false;  ///< `jail refresh --automatic` may rebuild it and restart its service
};

/// A file that was read, in order of merging (weakest first).
struct Source {
  std::string path;
  std::string sha256;
};

struct Manifest {
  std::string name;  ///< of the file, without .toml
  int version = 1;
  std::string description;
  std::vector<std::string> packages;
  std::vector<std::string> provides;  ///< names; of those that provide one, a single service runs
  Tree tree;
  Dlopen dlopen;
  std::vector<Config> configs;
  std::vector<Volume> volumes;
  std::vector<Socket> sockets;
  Service service;
  Sandbox sandbox;
  std::optional<Check> check;
  Refresh refresh;
  std::vector<Source> sources;
  /// Dotted path of each value that a file gave ("service.command", "tree.binaries[0]",
  /// "volume.named-cache.mode") to where it was written: for `jail show` and for messages of later stages.
  std::map<std::string, Origin> origins;

  /// "named.toml:14:3: " of the nearest origin at or above `path`; empty when there is none.
  [[nodiscard]] std::string where(const std::string& path) const;
};

/// Of a bundle: modules that a configuration names. Looked for where the jail has the configuration: in the
/// tree, or in a live [[config]]. Identity: `syntax`.
struct Plugins {
  std::string syntax;               ///< how names are found in it: closure/plugin_syntax.h
  std::vector<std::string> config;  ///< files, or directories with all of their files
  std::string object;  ///< {} is the name: "/usr/$LIB/security/{}", "libnss_{}.so.2"; may be a pattern
  std::vector<std::string> builtin;  ///< names that need no module
  std::vector<std::string> used_in;  ///< a name counts only where one of these files has "NAME:"
  std::vector<std::string> notes;    ///< "NAME: words", said where NAME is among them
};

/// Of a bundle: what shows, in the finished jail, that it works. Identity: `name`.
struct Probe {
  std::string name;
  std::vector<std::string> run;  ///< a verb of jail-probe and its words; see contrib/man/jail.toml.5
};

/// A bundle: what a family of dlopen'ed or configured things needs, as data. `include = ["openssl"]` names
/// bundles/openssl.toml of the manifest directories.
struct Bundle {
  std::string name;
  std::string description;
  std::vector<std::string>
      imports;  ///< joins every closure that imports one of these symbols, with no include
  std::vector<std::string> offers;  ///< `jail plan` names the bundle where one of these is imported
  std::vector<std::string> binaries;
  std::vector<std::string> libraries;
  std::vector<File> files;  ///< those with `optional` sources are left out where the host has none
  std::vector<std::string> optional_files;  ///< host paths, copied to the same place if they exist
  std::vector<std::string> directories;
  std::vector<std::string> devices;
  std::vector<Plugins> plugins;
  std::vector<Probe> probes;
  std::vector<std::string> ignore;  ///< as [dlopen] ignore
};

}  // namespace jail::manifest
