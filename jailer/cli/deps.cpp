// jail deps FILE...: which files ld.so would load for a program, in its order, and why; nothing is run.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "jailer/cli/verbs.h"
#include "jailer/elf/resolver.h"
#include "supervisor/base/io.h"
#include "supervisor/base/quote.h"

namespace jail::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> files;
  bool explain = false;
};

// A relative FILE counts from the current directory; below another root, from that root.
Result<std::string> absolute(const Context& context, const std::string& file) {
  if (!file.empty() && file[0] == '/') return file;
  if (context.root != "/") return "/" + file;
  const std::unique_ptr<char, decltype(&std::free)> here(::getcwd(nullptr, 0), &std::free);
  if (!here) return fail_errno(Exit::io, errno, "{}: the current directory is not known", quote(file));
  return std::string(here.get()) + "/" + file;
}

void add_object(std::string& out, const elf::Object& object, bool explain) {
  out += fmt::format("\t{} => {} ({})\n", escape(object.name), escape(object.path), escape(object.rule));
  if (!explain) return;
  out += fmt::format("\t\tneeded by {}\n", escape(object.needed_by));
  for (const elf::Tried& tried : object.tried) {
    out += fmt::format("\t\ttried {}: {}\n", escape(tried.path), escape(tried.outcome));
  }
  for (const elf::Hop& hop : object.file.hops) {
    out += fmt::format("\t\tlink {} -> {}\n", escape(hop.path), escape(hop.target));
  }
  for (const elf::Variant& variant : object.variants) {
    out += fmt::format("\t\tvariant {} ({})\n", escape(variant.path), escape(variant.subdirectory));
  }
}

void add_text(std::string& out, const std::string& file, const elf::Closure& closure,
              const Options& options) {
  out += escape(file) + ":\n";
  if (closure.is_static) out += "\tstatically linked\n";
  if (options.explain && closure.interpreter_file) {
    out += fmt::format("\tinterpreter {} => {}\n", escape(closure.interpreter),
                       escape(closure.interpreter_file->real));
  }
  for (std::size_t i = 1; i < closure.objects.size(); ++i)
    add_object(out, closure.objects[i], options.explain);
  const std::pair<const char*, const std::vector<elf::Object>*> besides[] = {
      {"on some processors besides", &closure.elsewhere}, {"for auditing besides", &closure.audit}};
  for (const auto& [when, objects] : besides) {
    if (!objects->empty()) out += fmt::format("\t{}:\n", when);
    for (const elf::Object& object : *objects) add_object(out, object, options.explain);
  }
  for (const std::string& note : closure.notes) out += "\tnote: " + escape(note) + "\n";
}

Json hops_json(const elf::Located& file) {
  Json hops = Json::array();
  for (const elf::Hop& hop : file.hops) hops.push_back({{"path", hop.path}, {"target", hop.target}});
  return hops;
}

Json object_json(const elf::Object& object, bool explain) {
  Json json = {{"name", object.name},
               {"path", object.path},
               {"real", object.file.real},
               {"soname", object.soname},
               {"needed_by", object.needed_by},
               {"rule", object.rule},
               {"links", hops_json(object.file)}};
  Json& variants = json["variants"] = Json::array();
  for (const elf::Variant& variant : object.variants) {
    variants.push_back(
        {{"path", variant.path}, {"subdirectory", variant.subdirectory}, {"real", variant.file.real}});
  }
  if (!explain) return json;
  Json& tried = json["tried"] = Json::array();
  for (const elf::Tried& place : object.tried)
    tried.push_back({{"path", place.path}, {"outcome", place.outcome}});
  return json;
}

Json closure_json(const std::string& file, const elf::Closure& closure, bool explain) {
  Json json = {{"file", file}, {"static", closure.is_static}, {"interpreter", closure.interpreter}};
  const std::pair<const char*, const std::vector<elf::Object>*> lists[] = {
      {"objects", &closure.objects}, {"elsewhere", &closure.elsewhere}, {"audit", &closure.audit}};
  for (const auto& [name, list] : lists) {
    Json& all = json[name] = Json::array();
    for (const elf::Object& object : *list) all.push_back(object_json(object, explain));
  }
  json["notes"] = closure.notes;
  return json;
}

// Prints as it goes, so that a long list of files shows what is done.
Result<void> flush(std::string& out, bool all) {
  constexpr std::size_t enough = 64 * 1024;
  if (out.empty() || (!all && out.size() < enough)) return {};
  JAIL_CHECK(write_all(STDOUT_FILENO, out, "standard output"));
  out.clear();
  return {};
}

int deps(const Context& context, const Options& options) {
  auto resolver = elf::Resolver::open(context.root);
  if (!resolver) return report(resolver.error());
  std::string out;
  Json files = Json::array();
  int status = 0;
  for (const std::string& file : options.files) {
    auto closure = absolute(context, file).and_then([&](const std::string& path) {
      return resolver->resolve(path, {false, options.explain});
    });
    if (!closure) {
      if (auto written = flush(out, true); !written) return report(written.error());
      status = std::max(status, report(closure.error()));
      if (context.json) {
        files.push_back({{"file", file}, {"error", closure.error().message}, {"hint", closure.error().hint}});
      }
    } else if (context.json) {
      files.push_back(closure_json(file, *closure, options.explain));
    } else {
      add_text(out, file, *closure, options);
    }
    if (auto written = flush(out, false); !written) return report(written.error());
  }
  if (context.json) {
    out = Json({{"version", 1}, {"files", std::move(files)}})
              .dump(2, ' ', false, Json::error_handler_t::replace) +
          "\n";
  }
  if (auto written = flush(out, true); !written) return report(written.error());
  return status;
}

}  // namespace

void add_deps(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, context, "deps", "List the libraries that programs would load, without running them");
  verb->add_option("FILE", options->files, "Programs or libraries; below --root, paths in there")->required();
  verb->add_flag("--explain", options->explain, "Show every place that was looked at");
  verb->callback(
      [&context, options] { context.run = [&context, options] { return deps(context, *options); }; });
}

}  // namespace jail::cli
