# fish completion for jail(1)

function __jail_home
    set -l words (commandline -opc)
    set -l at (contains -i -- --home $words)
    and echo $words[(math $at + 1)]
    or echo $JAIL_HOME
end

function __jail_built
    set -l home (__jail_home)
    set -l state /var/lib/jail
    test -n "$home"; and set state $home/state
    for link in $state/jails/*/current
        basename (dirname $link)
    end
end

function __jail_manifests
    set -l home (__jail_home)
    set -l dirs {/usr/lib,/usr/local/lib,/run,/etc}/jail/manifests
    test -n "$home"; and set -a dirs $home/manifests
    for dir in $dirs
        for file in $dir/*.toml
            basename $file .toml
        end
    end
end

set -l verbs build deps diff disable doctor enable exec export files gc graph history init lint list lock logs plan probe ps refresh reload remove restart rollback sbom show stale start status stop verify why
complete -c jail -f
complete -c jail -l home -x -a '(__fish_complete_directories)' -d 'Keep a whole instance below a directory'
complete -c jail -l manifests -x -a '(__fish_complete_directories)' -d 'Look for manifests there first'
complete -c jail -l root -x -a '(__fish_complete_directories)' -d 'Read sources from a root directory'
complete -c jail -l json -d 'Print the result as JSON'
complete -c jail -s q -l quiet -d 'Print results and errors only'
complete -c jail -s v -l verbose -d 'Say more'
complete -c jail -s h -l help -d 'Print help'
complete -c jail -n "not __fish_seen_subcommand_from $verbs" -l version -d 'Print the version'

set -l verb complete -c jail -n "not __fish_seen_subcommand_from $verbs"
$verb -a build -d 'Build the tree of a jail from its manifest'
$verb -a deps -d 'List the libraries that programs would load'
$verb -a disable -d 'Have jaild leave services alone when it starts'
$verb -a doctor -d 'Say what this host can enforce'
$verb -a enable -d 'Have jaild start services when it starts'
$verb -a exec -d 'Run a command in a running jail, or beside it'
$verb -a init -d 'Lay out the example configuration of a service'
$verb -a lint -d 'Check manifests'
$verb -a list -d 'List the jails that are built'
$verb -a diff -d 'Show what changed between two generations'
$verb -a export -d 'Write a tree as an archive'
$verb -a graph -d 'Draw what is in a tree, and why'
$verb -a sbom -d 'Print what is in a tree as a bill of materials'
$verb -a files -d 'List what is in a tree'
$verb -a gc -d 'Remove old generations and what no jail has'
$verb -a history -d 'List the generations of a jail'
$verb -a rollback -d 'Make an earlier generation the current one'
$verb -a stale -d 'Say which jails hold other files than the host'
$verb -a lock -d 'Print what a tree must contain'
$verb -a logs -d 'Print what services have logged'
$verb -a plan -d 'Print what a build would put into the tree'
$verb -a probe -d 'Show that what is loaded at run time works'
$verb -a ps -d 'Show the processes of jails'
$verb -a refresh -d 'Rebuild stale jails, restart and check their services'
$verb -a reload -d 'Have services read their configuration again'
$verb -a remove -d 'Remove the trees of a jail'
$verb -a restart -d 'Restart services'
$verb -a show -d 'Show the merged manifest'
$verb -a start -d 'Start services'
$verb -a status -d 'Show services'
$verb -a stop -d 'Stop services'
$verb -a verify -d 'Compare a tree with its lock'
$verb -a why -d 'Say why a file is in the tree'

complete -c jail -n '__fish_seen_subcommand_from build init lint plan show' -F -a '(__jail_manifests)'
complete -c jail -n '__fish_seen_subcommand_from deps' -F
complete -c jail -n '__fish_seen_subcommand_from diff disable enable exec export files graph history lock logs probe ps refresh reload remove restart rollback sbom stale start status stop verify why' -a '(__jail_built)'
complete -c jail -n '__fish_seen_subcommand_from build' -l force -d 'Make a new generation in any case'
complete -c jail -n '__fish_seen_subcommand_from build' -l into -r -F -d 'Make a plain tree there'
complete -c jail -n '__fish_seen_subcommand_from deps' -l explain -d 'Show every place that was looked at'
complete -c jail -n '__fish_seen_subcommand_from exec' -l tree -d 'A program of the tree only'
complete -c jail -n '__fish_seen_subcommand_from exec' -l host -d 'A program of the host only'
complete -c jail -n '__fish_seen_subcommand_from gc' -l dry-run -d 'Only say what would be removed'
complete -c jail -n '__fish_seen_subcommand_from gc' -l keep -x -d 'How many older generations stay'
complete -c jail -n '__fish_seen_subcommand_from init' -l test-certificate -d 'Make a certificate for trying'
complete -c jail -n '__fish_seen_subcommand_from init' -l keep-units -d 'Leave the units of the distribution alone'
complete -c jail -n '__fish_seen_subcommand_from init' -l undo -d 'Remove what init made'
complete -c jail -n '__fish_seen_subcommand_from init' -l dry-run -d 'Only say what would be done'
complete -c jail -n '__fish_seen_subcommand_from logs' -s n -l lines -x -a all -d 'The last so many lines'
complete -c jail -n '__fish_seen_subcommand_from logs' -s f -l follow -d 'Go on with what comes'
complete -c jail -n '__fish_seen_subcommand_from ps' -l stale -d 'Only those in another generation than the current one'
complete -c jail -n '__fish_seen_subcommand_from refresh' -l all -d 'All that are built'
complete -c jail -n '__fish_seen_subcommand_from refresh' -l automatic -d 'Only those whose policy allows it'
complete -c jail -n '__fish_seen_subcommand_from refresh' -l grace -x -d 'How long each has to stay up'
complete -c jail -n '__fish_seen_subcommand_from refresh' -l dry-run -d 'Only say what would be done'
complete -c jail -n '__fish_seen_subcommand_from stale' -l mark -d 'Have status and list say so from now on'
complete -c jail -n '__fish_seen_subcommand_from reload' -l using -r -F -d 'Those that show a path as a configuration'
complete -c jail -n '__fish_seen_subcommand_from remove' -l purge -d 'Remove volumes too'
complete -c jail -n '__fish_seen_subcommand_from show' -l all -d 'Show defaults too'
complete -c jail -n '__fish_seen_subcommand_from start stop restart' -l no-wait -d 'Return when jaild has begun'
complete -c jail -n '__fish_seen_subcommand_from enable' -l now -d 'And start them'
complete -c jail -n '__fish_seen_subcommand_from disable' -l now -d 'And stop them'
complete -c jail -n '__fish_seen_subcommand_from status' -l wait -x -d 'Wait so many seconds for what is starting'
complete -c jail -n '__fish_seen_subcommand_from files' -s l -l long -d 'Mode, owner, size and package, too'
complete -c jail -n '__fish_seen_subcommand_from export' -l format -x -a 'tar mtree' -d 'Of what is written'
complete -c jail -n '__fish_seen_subcommand_from export' -l with-secrets -d 'With what the manifest marks as secret'
complete -c jail -n '__fish_seen_subcommand_from graph' -l format -x -a 'text svg dot' -d 'Of the graph'
complete -c jail -n '__fish_seen_subcommand_from sbom' -l format -x -a 'cyclonedx spdx' -d 'Of the bill'
complete -c jail -n '__fish_seen_subcommand_from verify' -l quick -d 'Do not read what has not been touched'
complete -c jail -n '__fish_seen_subcommand_from verify' -l full -d 'Read every byte'
complete -c jail -n '__fish_seen_subcommand_from verify' -l host -d 'Compare the files of the host'
complete -c jail -n '__fish_seen_subcommand_from why' -l all -d 'Every chain of reasons'
