# The rows of the paper's table. Sourced by a script that sets
#   out, name      the folder of results, and its name below outputs/
#   tested         what is measured: benchmark=..., and how its images are read
#   learned        where codebooks are learned: benchmark@learn_on=...
#   spatial        verification of RootSIFT's matches
#   network        the network's own local features
#   verified       verification of their matches
# and that leaves checkpoints in $out/trained_{gem,delg,dolg}.

train() { # NAME EXPERIMENT OPTIONS...
  python -m src.train name="$name/trained_$1" experiment="$2" "${@:3}"
}
of() { # NAME
  echo "checkpoint=$out/trained_$1/checkpoints/best.ckpt"
}
evaluate() { # NAME METHOD OPTIONS...
  python -m src.evaluate name="$name/$1" method="'$2'" store="$out/descriptors" "${tested[@]}" "${@:3}"
}
families() {
  local rootsift=(features=rootsift aggregate=asmk "${learned[@]}")
  local delg_asmk=(aggregate=asmk "${network[@]}" "${learned[@]}")
  local untrained=(model=imagenet_gem backbone=efficientnet_lite0)
  evaluate a1_rootsift "(A) RootSIFT-ASMK" "${rootsift[@]}"
  evaluate a2_rootsift_sp "(A) RootSIFT-ASMK + SP" "${rootsift[@]}" "${spatial[@]}"
  evaluate a3_delg "(A) DELG-ASMK" "$(of delg)" "${delg_asmk[@]}"
  evaluate a4_delg_sp "(A) DELG-ASMK + SP" "$(of delg)" "${delg_asmk[@]}" "${verified[@]}"
  evaluate b1_rmac "(B) R-MAC, untrained" "${untrained[@]}" pooling=rmac
  evaluate b2_untrained "(B) GeM, untrained" "${untrained[@]}"
  evaluate b3_gem "(B) GeM" "$(of gem)"
  evaluate b4_delg "(B) DELG, global" "$(of delg)"
  evaluate c1_rootsift_sp "(C) GeM, RootSIFT + SP" "$(of gem)" features=rootsift "${spatial[@]}"
  evaluate c2_delg_sp "(C) DELG + SP" "$(of delg)" "${network[@]}" "${verified[@]}"
  evaluate d1_dolg "DOLG" "$(of dolg)"
  evaluate d2_dolg_sp "DOLG + SP" "$(of dolg)" "${network[@]}" "${verified[@]}"
  evaluate d3_dolg_diffusion "DOLG, diffusion" "$(of dolg)" rerank=diffusion rerank.neighbours=10
  evaluate d4_dolg_neighbours "DOLG, neighbours" "$(of dolg)" rerank=neighbours
  python -m src.report cards="'$out/[a-d]*/card.json'" out="$out" published=true against=DOLG
}
