# bash completion for jail(1)

_jail_home() {
  local i
  for ((i = 1; i < ${#COMP_WORDS[@]} - 1; ++i)); do
    [[ ${COMP_WORDS[i]} == --home ]] && { printf '%s' "${COMP_WORDS[i + 1]}"; return; }
  done
  printf '%s' "${JAIL_HOME-}"
}

# The names of the entries of a directory: built jails, or manifests without their .toml.
_jail_names() {
  local home state dir file
  home=$(_jail_home)
  state=${home:+$home/state}
  for file in "${state:-/var/lib/jail}"/jails/*/current; do
    [[ -L $file ]] && file=${file%/current} && printf '%s\n' "${file##*/}"
  done
  [[ ${1-} == built ]] && return
  for dir in /usr/lib/jail/manifests /usr/local/lib/jail/manifests /run/jail/manifests /etc/jail/manifests \
    ${home:+"$home/manifests"} ${JAIL_MANIFESTS:+"$JAIL_MANIFESTS"}; do
    for file in "$dir"/*.toml; do
      [[ -e $file ]] && file=${file##*/} && printf '%s\n' "${file%.toml}"
    done
  done
}

_jail() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
  local verbs='build deps diff disable doctor enable exec export files gc graph history init lint list lock logs plan probe ps refresh reload remove restart rollback sbom show stale start status stop verify why'
  local common='--home --manifests --root --json --quiet --verbose --help'
  COMPREPLY=()
  case $prev in
    --home | --manifests | --root | --into)
      mapfile -t COMPREPLY < <(compgen -d -- "$cur")
      return
      ;;
    --using)
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      return
      ;;
  esac
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${COMP_WORDS[i]} in
      --home | --manifests | --root | --using | --into | --keep) ((++i)) ;;
      -*) ;;
      *) verb=${COMP_WORDS[i]} && break ;;
    esac
  done
  if [[ $prev == --format ]]; then
    local formats=''
    case $verb in
      export) formats='tar mtree' ;;
      graph) formats='text svg dot' ;;
      sbom) formats='cyclonedx spdx' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$formats" -- "$cur")
    return
  fi
  if [[ -z $verb ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$verbs $common --version" -- "$cur")
    return
  fi
  # Behind "exec NAME --" stands a command.
  if [[ $verb == exec ]]; then
    for ((i = 1; i < COMP_CWORD; ++i)); do
      [[ ${COMP_WORDS[i]} == -- ]] || continue
      mapfile -t COMPREPLY < <(if ((i + 1 == COMP_CWORD)); then compgen -c -- "$cur"; else compgen -f -- "$cur"; fi)
      return
    done
  fi
  if [[ $cur == -* ]]; then
    local own=''
    case $verb in
      build) own='--force --into' ;;
      gc) own='--dry-run --keep' ;;
      deps) own='--explain' ;;
      export) own='--format --with-secrets' ;;
      graph | sbom) own='--format' ;;
      verify) own='--quick --full --host' ;;
      why) own='--all' ;;
      files) own='--long' ;;
      exec) own='--tree --host' ;;
      init) own='--test-certificate --keep-units --undo --dry-run' ;;
      logs) own='--lines --follow' ;;
      ps) own='--stale' ;;
      refresh) own='--all --automatic --grace --dry-run' ;;
      stale) own='--mark' ;;
      reload) own='--using' ;;
      remove) own='--purge' ;;
      show) own='--all' ;;
      start | stop | restart) own='--no-wait' ;;
      enable | disable) own='--now' ;;
      status) own='--wait' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$own $common" -- "$cur")
    return
  fi
  case $verb in
    deps) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    build | init | lint | plan | show)
      mapfile -t COMPREPLY < <(compgen -W "$(_jail_names)" -- "$cur"; compgen -f -X '!*.toml' -- "$cur")
      ;;
    doctor | gc | list) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$(_jail_names built)" -- "$cur") ;;
  esac
}

complete -o filenames -F _jail jail
