// The keys of an init.toml, in the words of the manifest's own tables.
#include <algorithm>
#include <array>
#include <set>

#include "jailer/init/example.h"
#include "jailer/manifest/fields.h"
#include "supervisor/base/quote.h"

namespace jail::manifest {

using init::Example;
using init::ExampleCertificate;
using init::ExampleDirectory;
using init::ExampleFile;

// clang-format off
template <> std::span<const Field<ExampleFile>> fields<ExampleFile>();
template <> std::span<const Field<ExampleDirectory>> fields<ExampleDirectory>();
template <> std::span<const Field<ExampleCertificate>> fields<ExampleCertificate>();
template <> std::vector<std::string_view> identity_keys<ExampleFile>();
template <> std::vector<std::string_view> identity_keys<ExampleDirectory>();
template <> std::vector<std::string_view> identity_keys<ExampleCertificate>();
// clang-format on

namespace {

struct BelowPath : TextCodec {
  static constexpr std::string_view expected = "a relative path without \"..\"";
  static std::string read(std::string_view text, std::string& out) {
    if (text.starts_with('/')) return quote(text, 128) + " is absolute; write it relative to the directory";
    if (text.empty()) return "is empty; expected " + std::string(expected);
    if (std::string wrong = path_problem("/" + std::string(text)); !wrong.empty())
      return quote(text, 128) + " " + wrong;
    out = text;
    return {};
  }
};

// Nobody but root may change what root's services read.
struct ClosedMode : Mode {
  static std::string read(std::string_view text, unsigned& out) {
    unsigned mode = 0;
    if (std::string wrong = Mode::read(text, mode); !wrong.empty()) return wrong;
    if ((mode & ~0755U) != 0)
      return quote(text) + " lets others than root write, or holds more than rwx bits";
    out = mode;
    return {};
  }
};

struct Unit : TextCodec {
  static constexpr std::string_view expected = "a unit's name such as \"named.service\"";
  static std::string read(std::string_view text, std::string& out) {
    static constexpr std::array<std::string_view, 4> kinds = {".service", ".socket", ".timer", ".path"};
    const auto inner = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             std::string_view(":-_.@").find(c) != std::string_view::npos;
    };
    const bool kind = std::any_of(kinds.begin(), kinds.end(), [&](std::string_view end) {
      return text.ends_with(end) && text.size() > end.size();
    });
    if (!kind || text.size() > 200 || text.front() == '.' || text.front() == '-' ||
        !std::all_of(text.begin(), text.end(), inner))
      return quote(text, 64) + " is not " + std::string(expected);
    out = text;
    return {};
  }
};

constexpr std::array<Field<ExampleFile>, 5> file_table = {
    text<&ExampleFile::path, BelowPath>("path", true),
    text<&ExampleFile::from, BelowPath>("from"),
    text<&ExampleFile::text, Text>("text"),
    text<&ExampleFile::mode, ClosedMode>("mode"),
    text<&ExampleFile::group, Account>("group"),
};

constexpr std::array<Field<ExampleDirectory>, 3> directory_table = {
    text<&ExampleDirectory::path, BelowPath>("path", true),
    text<&ExampleDirectory::mode, ClosedMode>("mode"),
    text<&ExampleDirectory::group, Account>("group"),
};

constexpr std::array<Field<ExampleCertificate>, 5> certificate_table = {
    text<&ExampleCertificate::cert, BelowPath>("cert", true),
    text<&ExampleCertificate::key, BelowPath>("key", true),
    text<&ExampleCertificate::host, Hostname>("host"),
    text<&ExampleCertificate::mode, ClosedMode>("mode"),
    text<&ExampleCertificate::group, Account>("group"),
};

constexpr std::array<Field<Example>, 8> example_table = {
    version<Example>(),
    text<&Example::config, AbsolutePath>("config"),
    text<&Example::drop_in, BelowPath>("drop_in"),
    entries<&Example::directories>("directory"),
    entries<&Example::files>("file"),
    entries<&Example::certificates>("certificate"),
    set_of<&Example::units, Unit>("units"),
    set_of<&Example::next, Text>("next"),
};

// What the values say together: where each thing goes, and that its directory comes with it.
class Layout {
 public:
  Layout(Binder& binder, const Value& root) : binder_(binder), root_(root) {}

  void check(const Example& example) {
    for (const ExampleDirectory& directory : example.directories) {
      place("directory", directory.path, directory.path);
      directories_.insert(directory.path);
    }
    for (const ExampleFile& file : example.files) {
      place("file", file.path, file.path);
      if (file.text && !file.from.empty())
        complain("file." + file.path, "both 'from' and 'text' are given; one of them is the content");
    }
    for (const ExampleCertificate& certificate : example.certificates) {
      place("certificate", certificate.cert, certificate.cert);
      place("certificate", certificate.cert, certificate.key);
    }
    if (example.config.empty() && !placed_.empty())
      complain("", "the key 'config' is missing: it says where in the jail the laid out files are found");
  }

 private:
  void complain(const std::string& path, const std::string& what) {
    const auto at = binder_.origins().find(path);
    Value value = {{}, at == binder_.origins().end() ? root_.origin : at->second};
    binder_.problem(value, path.empty() ? what : path + ": " + what);
  }

  void place(const std::string& kind, const std::string& entry, const std::string& path) {
    const std::string name = kind + "." + entry;
    if (path.empty()) return;  // a problem already
    if (!placed_.insert(path).second) complain(name, quote(path, 128) + " is laid out already");
    const std::size_t slash = path.rfind('/');
    if (slash != std::string::npos && !directories_.contains(path.substr(0, slash)))
      complain(name, fmt::format("no [[directory]] (or none above it) has the path {}",
                                 quote(path.substr(0, slash), 128)));
  }

  Binder& binder_;
  const Value& root_;
  std::set<std::string> placed_;
  std::set<std::string> directories_;
};

}  // namespace

// clang-format off
template <> std::span<const Field<ExampleFile>> fields<ExampleFile>() { return file_table; }
template <> std::span<const Field<ExampleDirectory>> fields<ExampleDirectory>() { return directory_table; }
template <> std::span<const Field<ExampleCertificate>> fields<ExampleCertificate>() { return certificate_table; }

template <> std::vector<std::string_view> identity_keys<ExampleFile>() { return {"path"}; }
template <> std::vector<std::string_view> identity_keys<ExampleDirectory>() { return {"path"}; }
template <> std::vector<std::string_view> identity_keys<ExampleCertificate>() { return {"cert"}; }
// clang-format on

}  // namespace jail::manifest

namespace jail::init {

manifest::Key example_keys() {
  return {"", manifest::Merge::fields, true, {}, {}, manifest::describe<Example>(manifest::example_table)};
}

std::vector<std::string> example_key_paths() {
  std::vector<std::string> paths;
  for (const manifest::Key& key : example_keys().children) {
    const std::string path = std::string(key.name) + (key.children.empty() ? "" : "[]");
    paths.push_back(path);
    for (const manifest::Key& child : key.children) paths.push_back(path + "." + std::string(child.name));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void bind_example(manifest::Binder& binder, Example& example, const manifest::Value& root) {
  manifest::bind_table<Example>(binder, example, root, manifest::example_table, "the example");
  manifest::Layout(binder, root).check(example);
}

}  // namespace jail::init
