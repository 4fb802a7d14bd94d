# Plots of a run of `make bench`, from the CSV files that the run writes. `make plots` runs this file;
#     gnuplot -e "folder='target/bench'" bench/plots.gp
# plots another folder. The plots are FOLDER/plots/*.svg. A candidate has the same colour in all plots (Okabe and Ito,
# "Color universal design", 2008).

if (!exists("folder")) folder = "target/bench"
system(sprintf("mkdir -p '%s/plots'", folder))
csv(name) = sprintf("%s/%s.csv", folder, name)
svg(name) = sprintf("%s/plots/%s.svg", folder, name)
exists_csv(name) = int(system(sprintf("test -s '%s' && echo 1 || echo 0", csv(name))))

set datafile separator ","
set datafile missing NaN
set key outside right
set grid
set style data linespoints

all = "knockplane knockplane-userspace smallest smallest-spinning smallest-xsk-rs nftables nftables-rps nftables-bridge xdp-parse xdp wire knockd"
colours = "#d55e00 #8c510a #56b4e9 #0072b2 #f0e442 #009e73 #e69f00 #cc79a7 #505050 #969696 #d0d0d0 #000000"
colour(name) = word(colours, sum [i = 1:words(all)] (word(all, i) eq name ? i : 0))
# The candidates that a file has.
candidates(name) = system(sprintf("for c in %s; do grep -q \"\\\"$c\\\"\" '%s' && printf '%%s ' $c; done || true", all, csv(name)))
# `value` in the rows of a candidate, whose name is in column `c`; and only in arrangement `a`, which is the column before.
of(c, candidate, value) = strcol(c) eq candidate ? value : NaN
within(a, c, candidate, value) = strcol(c - 1) eq a ? of(c, candidate, value) : NaN
# One label for each group of rows.
label(group, arrangement, candidate) = candidate eq "knockplane" ? group.", ".arrangement : ""

set terminal svg size 1120,700 background "white"
set xtics rotate by -40
if (exists_csv("throughput")) {
    set output svg("throughput")
    set title "Throughput in Mpps: 90th percentile of windows"
    set logscale y
    plot for [c in candidates("throughput")] csv("throughput") skip 1 \
        using 0:(of(3, c, $4)):xtic(label(strcol(1), strcol(2), strcol(3))) with points pt 7 lc rgb colour(c) title c
    unset logscale
}
if (exists_csv("latency")) {
    set output svg("latency")
    set title "Latency in µs: median (dot) to 99th percentile"
    set logscale y
    plot for [c in candidates("latency")] csv("latency") skip 1 \
        using 0:(of(3, c, $6)):(of(3, c, $6)):(of(3, c, $7)):xtic(label(strcol(1)[1:24], strcol(2), strcol(3))) \
        with yerrorbars pt 7 lc rgb colour(c) title c
    unset logscale
}

set terminal svg size 1120,460 background "white"
set xtics norotate
set format x "%.0s%c"
set logscale x
do for [name in "rules entries loss-points deafness"] {
    if (exists_csv(name)) {
        set output svg(name)
        set multiplot layout 1, (name eq "deafness" ? 1 : 2)
        if (name eq "deafness") {
            set title "Real knocks heard over first knocks a second"
            plot for [c in candidates(name)] csv(name) skip 1 \
                using ($2 > 0 ? $2 : NaN):(of(1, c, $3 / $4)) pt 7 lc rgb colour(c) title c
        } else {
            do for [a in "S T"] {
                if (name eq "loss-points") {
                    set title a.": part lost over frames offered a second"
                    plot for [c in candidates(name)] csv(name) skip 1 \
                        using 3:(within(a, 2, c, $4)) pt 7 lc rgb colour(c) title c
                } else {
                    set title a.": throughput in Mpps over ".(name eq "rules" ? "rules in front" : "list entries")
                    plot for [c in candidates(name)] csv(name) skip 1 \
                        using 1:(within(a, 3, c, $4)) pt 7 lc rgb colour(c) title c
                }
            }
        }
        unset multiplot
    }
}
