"""How an ability came: curves over training, the shapes that explain them, the verdict over seeds, the loss law."""
