# SPDX-License-Identifier: Apache-2.0
# bash completion for sonic-submit, sonic-farm, sonic-broker and sonic-worker. Installed under the
# name of each, because bash-completion loads a file by the name of the command.

# The value of the last OPTION on the line so far; nothing when it is not there.
_sonic_value_of() {
    local option=$1 i
    for ((i = COMP_CWORD - 1; i > 0; i--)); do
        if [[ ${COMP_WORDS[i]} == "$option" ]]; then
            # An endpoint is split at its colons (COMP_WORDBREAKS): join it again.
            local value=
            for ((i++; i < COMP_CWORD; i++)); do
                [[ ${COMP_WORDS[i]} == -* ]] && break
                value+=${COMP_WORDS[i]}
            done
            printf '%s' "$value"
            return
        fi
    done
}

# The farm's models. It must not keep a shell waiting where no farm runs.
_sonic_models() {
    local broker
    broker=$(_sonic_value_of --broker)
    timeout 2 "${COMP_WORDS[0]}" models --timeout 1 ${broker:+--broker "$broker"} 2>/dev/null |
        while read -r name rest; do
            [[ $name == MODEL ]] || printf '%s\n' "$name"
        done
}

_sonic_words() {
    local IFS=$' \t\n'
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_sonic_files() {
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen "$@" -- "$cur"))
}

_sonic_submit() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $prev in
    --model) _sonic_words "$(_sonic_models)" ;;
    --input | --output) _sonic_files -f ;;
    --shard) _sonic_words auto ;;
    --priority) _sonic_words '1 2 3 4 5 6 7 8' ;;
    --batch | --window | --deadline | --tenant | --timeout | --broker) ;;
    *)
        if [[ $cur == -* ]]; then
            _sonic_words '--model --input --output --batch --window --priority --deadline --tenant --shard
                --resume --restart --force --json --quiet --timeout --broker --help --version'
        elif ((COMP_CWORD == 1)); then
            _sonic_words 'models status placement'
        elif [[ -n $(_sonic_value_of --input) ]]; then
            _sonic_files -f # more files after the first
        fi
        ;;
    esac
}

_sonic_farm() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --exec ]] || continue
        if ((i + 1 == COMP_CWORD)); then _sonic_files -c; else _sonic_files -f; fi
        return
    done
    case $prev in
    --models | --dir) _sonic_files -d ;;
    --device) _sonic_words 'cpu opencl null delay' ;;
    --log) _sonic_words 'debug info warn error' ;;
    --listen | --memory | --redis | --farm) ;;
    *) _sonic_words '--models --device --dir --listen --memory --redis --farm --log --insecure --exec --help --version' ;;
    esac
}

_sonic_broker() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $prev in
    --models) _sonic_files -d ;;
    --config) _sonic_files -f ;;
    --log) _sonic_words 'debug info warn error' ;;
    --client | --worker | --memory | --slabs | --lease | --redis | --farm | --name) ;;
    *) _sonic_words '--client --worker --models --memory --slabs --lease --redis --farm --name --config --log --insecure --help --version' ;;
    esac
}

_sonic_worker() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} models i
    COMPREPLY=()
    case $prev in
    --models) _sonic_files -d ;;
    --model) # those of the repository that the line names
        models=$(_sonic_value_of --models)
        for i in "${models:-.}"/*/config.pbtxt; do
            i=${i%/config.pbtxt}
            i=${i##*/}
            [[ $i == '*' || $i != "$cur"* ]] || COMPREPLY+=("$i")
        done
        ;;
    --device) _sonic_words 'cpu opencl null delay' ;;
    --log) _sonic_words 'debug info warn error' ;;
    --broker | --name | --redis | --farm | --room-requests | --room-bytes) ;;
    *) _sonic_words '--broker --models --model --device --name --redis --farm --room-requests --room-bytes --log --help --version' ;;
    esac
}

complete -F _sonic_submit sonic-submit
complete -F _sonic_farm sonic-farm
complete -F _sonic_broker sonic-broker
complete -F _sonic_worker sonic-worker
