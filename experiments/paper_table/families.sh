# The rows of the paper's table. Sourced by a script that sets
#   name, out      the folder of results below outputs/, and its path
#   tested         the benchmark=..., and how its images are read
#   learned        the set on which codebooks are learned: benchmark@learn_on=...
#   spatial        options for verifying RootSIFT's matches
#   network        the network's own local features
#   verified       options for verifying their matches
#   nearer         the same for DOLG's features, if different
#   backbone       of the untrained rows
#   delg           how DELG reads images, if different
# and that sets trained[gem], trained[delg] and trained[dolg] to checkpoints, made by `train` or given.

declare -A trained

train() { # NAME EXPERIMENT OPTIONS...
  python -m src.train name="$name/trained_$1" experiment="$2" "${@:3}"
  trained[$1]=$out/trained_$1/checkpoints/best.ckpt
}
evaluate() { # NAME METHOD OPTIONS...
  python -m src.evaluate name="$name/$1" method="'$2'" store="$out/descriptors" "${tested[@]}" "${@:3}"
}
families() {
  local rootsift=(features=rootsift aggregate=asmk "${learned[@]}")
  local untrained=(model=imagenet_gem backbone="$backbone")
  local gem=(checkpoint="${trained[gem]}") dolg=(checkpoint="${trained[dolg]}")
  local delg=(checkpoint="${trained[delg]}" "${delg[@]}")
  local delg_asmk=("${delg[@]}" aggregate=asmk "${network[@]}" "${learned[@]}")
  evaluate a1_rootsift "(A) RootSIFT-ASMK" "${rootsift[@]}"
  evaluate a2_rootsift_sp "(A) RootSIFT-ASMK + SP" "${rootsift[@]}" "${spatial[@]}"
  evaluate a3_delg "(A) DELG-ASMK" "${delg_asmk[@]}"
  evaluate a4_delg_sp "(A) DELG-ASMK + SP" "${delg_asmk[@]}" "${verified[@]}"
  evaluate b1_rmac "(B) R-MAC, untrained" "${untrained[@]}" pooling=rmac
  evaluate b2_untrained "(B) GeM, untrained" "${untrained[@]}"
  evaluate b3_gem "(B) GeM" "${gem[@]}"
  evaluate b4_delg "(B) DELG, global" "${delg[@]}"
  evaluate c1_rootsift_sp "(C) GeM, RootSIFT + SP" "${gem[@]}" features=rootsift "${spatial[@]}"
  evaluate c2_delg_sp "(C) DELG + SP" "${delg[@]}" "${network[@]}" "${verified[@]}"
  evaluate d1_dolg "DOLG" "${dolg[@]}"
  evaluate d2_dolg_sp "DOLG + SP" "${dolg[@]}" "${network[@]}" "${verified[@]}" "${nearer[@]}"
  evaluate d3_dolg_diffusion "DOLG, diffusion" "${dolg[@]}" rerank=diffusion rerank.neighbours=10
  evaluate d4_dolg_neighbours "DOLG, neighbours" "${dolg[@]}" rerank=neighbours
}
report() { # CARDS
  python -m src.report cards="'$1'" out="$out" published=true against=DOLG
}
